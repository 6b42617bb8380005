// cross_entropy: weight * sum over rows of -sum_k t_k log softmax(x)_k with soft targets t; a row of zero targets counts nothing.
#include "engine/map.h"
#include "engine/math.h"
#include "engine/ops.h"
#include "engine/profile.h"

namespace {

template <class T> struct Forward {
  const T *x, *targets;
  int64_t classes;
  template <class Team> HD void operator()(int64_t row, const Team& team, const ColumnSums<Compute<T>>& sums) const {
    using C = Compute<T>;
    const T *in = x + row * classes, *t = targets + row * classes;
    const C top = team.template max<C>(classes, [&](int64_t j) { return C(in[j]); });
    const C partition = team.template sum<C>(classes, [&](int64_t j) { return fast_exp(C(in[j]) - top); });
    const C log_partition = top + C(log(partition));
    const C loss = team.template sum<C>(classes, [&](int64_t j) { return C(t[j]) * (log_partition - C(in[j])); });
    if (team.leads()) sums.add(0, 0, loss);
  }
};

template <class T> struct Backward {   // dx = weight dy (softmax(x) sum(t) - t)
  const T *x, *targets;
  const Compute<T>* dy;
  T* dx;
  bool add;
  Compute<T> weight;
  int64_t classes;
  template <class Team> HD void operator()(int64_t row, const Team& team) const {
    using C = Compute<T>;
    const T *in = x + row * classes, *t = targets + row * classes;
    T* out = dx + row * classes;
    const C top = team.template max<C>(classes, [&](int64_t j) { return C(in[j]); });
    const C partition = team.template sum<C>(classes, [&](int64_t j) { return fast_exp(C(in[j]) - top); });
    const C mass = team.template sum<C>(classes, [&](int64_t j) { return C(t[j]); });
    const C factor = weight * *dy;
    team.each(classes, [&](int64_t j) {
      const C g = factor * (fast_exp(C(in[j]) - top) / partition * mass - C(t[j]));
      out[j] = T((add ? C(out[j]) : C(0)) + g);
    });
  }
};

template <class C> struct Weighted {
  const C* sum;
  C* loss;
  C weight;
  HD void operator()(int64_t) const { *loss = weight * *sum; }
};

}  // namespace

// The loss is a tensor of one element, f32 (f64 for f64 logits).
Tensor cross_entropy(const Tensor& logits, const Tensor& targets, double weight) {
  const OpRange range("cross_entropy");
  check(logits.shape() == targets.shape() && logits.shape().rank() == 2 && logits.dtype() == targets.dtype(),
        "[cross_entropy] logits are ", logits.shape(), ", targets are ", targets.shape(), ": both must be [B, K]");
  const int64_t classes = logits.dim(1);
  Tensor loss = Tensor::empty({1}, logits.dtype() == DType::f64 ? DType::f64 : DType::f32, logits.device());
  dispatch(logits.dtype(), [&]<class T>() {
    using C = Compute<T>;
    const Tensor sum = map_rows_reduce<C>(logits.device(), logits.rows(), 1, 1, Forward<T>{logits.data<T>(), targets.data<T>(), classes});
    map(logits.device(), 1, Weighted<C>{sum.data<C>(), loss.data<C>(), C(weight)});
  });
  record("cross_entropy", loss, {logits}, [=](const Tensor& dy) {
    auto target = into(logits);
    dispatch(logits.dtype(), [&]<class T>() {
      using C = Compute<T>;
      map_rows(logits.device(), logits.rows(),
               Backward<T>{logits.data<T>(), targets.data<T>(), dy.data<C>(), target.grad.data<T>(), target.beta != 0, C(weight), classes});
    });
  });
  return loss;
}
