// add_bias: y = x + bias, the bias [C] being added to every row of x [..., C].
#include "engine/column_sums.h"
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
    const auto in = team.read(x + row * columns, columns);
    const auto b = team.read(bias, columns);
    team.write(y + row * columns, columns, [&](auto j) { return in[j] + b[j]; });
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
    map_cells<T>(x.device(), x.rows(), columns, Forward<T>{x.data<T>(), b.data<Compute<T>>(), y.data<T>(), columns});
  });
  record("add_bias", y, {x, bias}, [x, columns, bias](const Tensor& dy) {
    if (bias.wants_grad()) add_to_gradient(column_sums(dy), bias);
    pass_on(dy, x);
  });
  return y;
}
