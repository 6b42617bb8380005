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
    const auto in = team.read(x + row * columns, columns);
    const C top = team.template max<C>(columns, [&](auto j) { return in[j]; });
    const C sum = team.template sum<C>(columns, [&](auto j) { return fast_exp(in[j] - top); });
    team.write(y + row * columns, columns, [&](auto j) { return fast_exp(in[j] - top) / sum; });
  }
};

template <class T> struct Backward {   // dx = y (dy - <dy, y>)
  const T *y, *dy;
  T* dx;
  bool add;
  int64_t columns;
  template <class Team> HD void operator()(int64_t row, const Team& team) const {
    using C = Compute<T>;
    const auto p = team.read(y + row * columns, columns);
    const auto g = team.read(dy + row * columns, columns);
    const C dot = team.template sum<C>(columns, [&](auto j) { return p[j] * g[j]; });
    team.update(dx + row * columns, columns, add, [&](auto j) { return p[j] * (g[j] - dot); });
  }
};

}  // namespace

Tensor softmax(const Tensor& x) {
  const OpRange range("softmax");
  Tensor y = Tensor::like(x);
  count_kernel({x}, {y});
  const int64_t columns = x.dim(-1);
  dispatch(x.dtype(), [&]<class T>() { map_rows<T>(x.device(), x.rows(), columns, Forward<T>{x.data<T>(), y.data<T>(), columns}); });
  record("softmax", y, {x}, [x, saved = y.detached(), columns](const Tensor& dy) {
    auto target = into(x);
    count_kernel({saved, dy}, {target});
    dispatch(dy.dtype(), [&]<class T>() {
      map_rows<T>(dy.device(), dy.rows(), columns, Backward<T>{saved.data<T>(), dy.data<T>(), target.grad.data<T>(), target.beta != 0, columns});
    });
  });
  return y;
}
