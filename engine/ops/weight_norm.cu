// weight_norm: rows gain_r W_r / |W_r| of a weight [out, ...] (Salimans and Kingma 2016; torch.nn.utils.weight_norm with dim 0).
// A zero row has no direction: it stays zero, and no gradient comes back from it.
#include "engine/map.h"
#include "engine/ops.h"
#include "engine/profile.h"

namespace {

template <class C> HD C inverse_root(C squares) {
  return squares > 0 ? C(1) / C(sqrt(squares)) : C(0);
}

template <class T> struct Forward {
  const T* w;
  const Compute<T>* gain;
  T* y;
  int64_t columns;
  template <class Team> HD void operator()(int64_t row, const Team& team) const {
    using C = Compute<T>;
    const T* in = w + row * columns;
    T* out = y + row * columns;
    const C squares = team.template sum<C>(columns, [&](int64_t j) { return C(in[j]) * C(in[j]); });
    const C factor = gain[row] * inverse_root(squares);
    team.each(columns, [&](int64_t j) { out[j] = T(C(in[j]) * factor); });
  }
};

// With the direction w^ = W / |W|: dgain = <w^, dy>, dW = gain / |W| (dy - w^ <w^, dy>). D: what the gradient of W is stored as.
template <class T, class D> struct Backward {
  const T *w, *dy;
  const Compute<T>* gain;
  D* dw;   // null if W wants no gradient
  bool add;
  Compute<T>* dgain;
  int64_t columns;
  template <class Team> HD void operator()(int64_t row, const Team& team) const {
    using C = Compute<T>;
    const T *in = w + row * columns, *g = dy + row * columns;
    const C squares = team.template sum<C>(columns, [&](int64_t j) { return C(in[j]) * C(in[j]); });
    const C dot = team.template sum<C>(columns, [&](int64_t j) { return C(in[j]) * C(g[j]); });
    const C inverse = inverse_root(squares);
    if (team.leads()) dgain[row] = dot * inverse;
    if (!dw) return;
    D* out = dw + row * columns;
    const bool keep_old = add;
    const C factor = gain[row] * inverse, back = dot * inverse * inverse;
    team.each(columns, [&](int64_t j) {
      const C old = out[j];
      out[j] = D((keep_old ? old : C(0)) + factor * (C(g[j]) - C(in[j]) * back));
    });
  }
};

}  // namespace

Tensor weight_norm(const Tensor& weight, const Tensor& gain) {
  const OpRange range("weight_norm");
  check(weight.size() > 0 && gain.size() == weight.dim(0), "[weight_norm] weight is ", weight.shape(), ", gain is ", gain.shape(),
        ": one gain for each row is needed");
  const int64_t rows = weight.dim(0), columns = weight.size() / rows;
  const Tensor wide_gain = computed(gain, weight.dtype());
  Tensor y = Tensor::like(weight);
  count_kernel({weight, wide_gain}, {y});
  dispatch(weight.dtype(), [&]<class T>() {
    map_rows(weight.device(), rows, Forward<T>{weight.data<T>(), wide_gain.data<Compute<T>>(), y.data<T>(), columns});
  });
  record("weight_norm", y, {weight, gain}, [=](const Tensor& dy) {
    const Into target = weight.wants_grad() ? into(weight) : Into{Tensor(), 0};
    const Tensor dgain = Tensor::like(wide_gain);
    count_kernel({weight, dy, wide_gain}, {target, dgain});
    dispatch(weight.dtype(), [&]<class T>() {
      dispatch(target.grad ? target.grad.dtype() : weight.dtype(), [&]<class D>() {
        map_rows(weight.device(), rows, Backward<T, D>{weight.data<T>(), dy.data<T>(), wide_gain.data<Compute<T>>(),
                                                       target.grad ? target.grad.data<D>() : nullptr, target.beta != 0,
                                                       dgain.data<Compute<T>>(), columns});
      });
    });
    add_to_gradient(dgain, gain);
  });
  return y;
}
