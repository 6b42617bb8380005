// add_bias: y = x + bias, the bias [C] being added to every row of x [..., C].
#include "engine/map.h"
#include "engine/ops.h"
#include "engine/profile.h"

namespace {

template <class T> struct Forward {
  const T* x;
  const Compute<T>* bias;
  T* y;
  int64_t columns;
  template <class Team> HD void operator()(int64_t row, const Team& team) const {
    const int64_t at = row * columns;
    team.each(columns, [&](int64_t j) { y[at + j] = T(Compute<T>(x[at + j]) + bias[j]); });
  }
};

template <class T> struct Backward {   // dbias = column sums of dy
  const T* dy;
  int64_t columns;
  template <class Team> HD void operator()(int64_t row, const Team& team, const ColumnSums<Compute<T>>& sums) const {
    team.each(columns, [&](int64_t j) { sums.add(0, j, Compute<T>(dy[row * columns + j])); });
  }
};

}  // namespace

Tensor add_bias(const Tensor& x, const Tensor& bias) {
  const OpRange range("add_bias");
  const int64_t columns = x.dim(-1);
  check(bias.size() == columns, "[add_bias] x is ", x.shape(), ", bias is ", bias.shape(), ": last dimensions must agree");
  Tensor y = Tensor::like(x);
  const Tensor b = computed(bias, x.dtype());
  count_kernel({x, b}, {y});
  dispatch(x.dtype(), [&]<class T>() {
    map_rows(x.device(), x.rows(), Forward<T>{x.data<T>(), b.data<Compute<T>>(), y.data<T>(), columns});
  });
  record("add_bias", y, {x, bias}, [x, columns, bias](const Tensor& dy) {
    if (bias.wants_grad()) {
      count_kernel({dy}, {});
      dispatch(dy.dtype(), [&]<class T>() {
        add_sums<Compute<T>>(map_rows_reduce<Compute<T>>(dy.device(), dy.rows(), columns, 1, Backward<T>{dy.data<T>(), columns}), 0, bias);
      });
    }
    pass_on(dy, x);
  });
  return y;
}
