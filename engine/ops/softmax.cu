// softmax: y_j = exp(x_j - max x) / sum exp(x - max x) over the last dimension.
#include "engine/map.h"
#include "engine/math.h"
#include "engine/ops.h"
#include "engine/profile.h"

namespace {

template <class T> struct Forward {
  const T* x;
  T* y;
  int64_t columns;
  template <class Team> HD void operator()(int64_t row, const Team& team) const {
    using C = Compute<T>;
    const T* in = x + row * columns;
    T* out = y + row * columns;
    const C top = team.template max<C>(columns, [&](int64_t j) { return C(in[j]); });
    const C sum = team.template sum<C>(columns, [&](int64_t j) { return fast_exp(C(in[j]) - top); });
    team.each(columns, [&](int64_t j) { out[j] = T(fast_exp(C(in[j]) - top) / sum); });
  }
};

template <class T> struct Backward {   // dx = y (dy - <dy, y>)
  const T *y, *dy;
  T* dx;
  bool add;
  int64_t columns;
  template <class Team> HD void operator()(int64_t row, const Team& team) const {
    using C = Compute<T>;
    const int64_t at = row * columns;
    const C dot = team.template sum<C>(columns, [&](int64_t j) { return C(y[at + j]) * C(dy[at + j]); });
    team.each(columns, [&](int64_t j) { dx[at + j] = T((add ? C(dx[at + j]) : C(0)) + C(y[at + j]) * (C(dy[at + j]) - dot)); });
  }
};

}  // namespace

Tensor softmax(const Tensor& x) {
  const OpRange range("softmax");
  Tensor y = Tensor::like(x);
  count_kernel({x}, {y});
  const int64_t columns = x.dim(-1);
  dispatch(x.dtype(), [&]<class T>() { map_rows(x.device(), x.rows(), Forward<T>{x.data<T>(), y.data<T>(), columns}); });
  record("softmax", y, {x}, [x, saved = y.detached(), columns](const Tensor& dy) {
    auto target = into(x);
    count_kernel({saved, dy}, {target});
    dispatch(dy.dtype(), [&]<class T>() {
      map_rows(dy.device(), dy.rows(), Backward<T>{saved.data<T>(), dy.data<T>(), target.grad.data<T>(), target.beta != 0, columns});
    });
  });
  return y;
}
