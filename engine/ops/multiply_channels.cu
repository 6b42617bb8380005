// multiply_channels: y = x * w, the weights [C] being applied to every row of x [..., C].
#include "engine/map.h"
#include "engine/ops.h"
#include "engine/profile.h"

namespace {

template <class T> struct Forward {
  const T* x;
  const Compute<T>* w;
  T* y;
  int64_t columns;
  template <class Team> HD void operator()(int64_t row, const Team& team) const {
    const auto in = team.read(x + row * columns, columns);
    const auto weight = team.read(w, columns);
    team.write(y + row * columns, columns, [&](auto j) { return in[j] * weight[j]; });
  }
};

template <class T> struct Backward {   // dx = dy * w, dw = column sums of dy * x
  const T *x, *dy;
  const Compute<T>* w;
  T* dx;   // null if x wants no gradient
  bool add;
  int64_t columns;
  template <class Team, class Sums> HD void operator()(int64_t row, const Team& team, Sums& sums) const {
    const auto in = team.read(x + row * columns, columns);
    const auto g = team.read(dy + row * columns, columns);
    team.each(columns, [&](auto j) { sums.add(0, j, g[j] * in[j]); });
    if (!dx) return;
    const auto weight = team.read(w, columns);
    team.update(dx + row * columns, columns, add, [&](auto j) { return g[j] * weight[j]; });
  }
};

}  // namespace

Tensor multiply_channels(const Tensor& x, const Tensor& weight) {
  const OpRange range("multiply_channels");
  const int64_t columns = x.dim(-1);
  check(weight.size() == columns, "[multiply_channels] x is ", x.shape(), ", weight is ", weight.shape(), ": last dimensions must agree");
  Tensor y = Tensor::like(x);
  const Tensor w = computed(weight, x.dtype());
  count_kernel({x, w}, {y});
  dispatch(x.dtype(), [&]<class T>() {
    map_cells<T>(x.device(), x.rows(), columns, Forward<T>{x.data<T>(), w.data<Compute<T>>(), y.data<T>(), columns});
  });
  record("multiply_channels", y, {x, weight}, [x, w, weight, columns](const Tensor& dy) {
    const Into target = x.wants_grad() ? into(x) : Into{Tensor(), 0};
    count_kernel({x, dy, w}, {target});
    dispatch(dy.dtype(), [&]<class T>() {
      const Backward<T> f{x.data<T>(), dy.data<T>(), w.data<Compute<T>>(), target.grad ? target.grad.data<T>() : nullptr,
                          target.beta != 0, columns};
      add_sums<Compute<T>>(map_cells_reduce<T, 1>(dy.device(), dy.rows(), columns, f), 0, weight);
    });
  });
  return y;
}
