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
    const int64_t at = row * columns;
    team.each(columns, [&](int64_t j) { y[at + j] = T(Compute<T>(x[at + j]) * w[j]); });
  }
};

template <class T> struct Backward {   // dx = dy * w, dw = column sums of dy * x
  const T *x, *dy;
  const Compute<T>* w;
  T* dx;   // null if x wants no gradient
  bool add;
  int64_t columns;
  template <class Team> HD void operator()(int64_t row, const Team& team, const ColumnSums<Compute<T>>& sums) const {
    const int64_t at = row * columns;
    team.each(columns, [&](int64_t j) { sums.add(0, j, Compute<T>(dy[at + j]) * Compute<T>(x[at + j])); });
    if (!dx) return;
    team.each(columns, [&](int64_t j) { dx[at + j] = T((add ? Compute<T>(dx[at + j]) : Compute<T>(0)) + Compute<T>(dy[at + j]) * w[j]); });
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
    map_rows(x.device(), x.rows(), Forward<T>{x.data<T>(), w.data<Compute<T>>(), y.data<T>(), columns});
  });
  record("multiply_channels", y, {x, weight}, [x, w, weight, columns](const Tensor& dy) {
    const Into target = x.wants_grad() ? into(x) : Into{Tensor(), 0};
    count_kernel({x, dy, w}, {target});
    dispatch(dy.dtype(), [&]<class T>() {
      const Backward<T> f{x.data<T>(), dy.data<T>(), w.data<Compute<T>>(), target.grad ? target.grad.data<T>() : nullptr,
                          target.beta != 0, columns};
      add_sums<Compute<T>>(map_rows_reduce<Compute<T>>(dy.device(), dy.rows(), columns, 1, f), 0, weight);
    });
  });
  return y;
}
