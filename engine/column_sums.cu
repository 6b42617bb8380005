// column_sums.cu: sums over rows as a pass of their own.
#include "engine/column_sums.h"

#include "engine/map.h"

namespace {

template <class T> struct Sums {
  const T* x;
  int64_t columns;
  template <class Team> HD void operator()(int64_t row, const Team& team, const ColumnSums<Compute<T>>& sums) const {
    team.each(columns, [&](int64_t j) { sums.add(0, j, Compute<T>(x[row * columns + j])); });
  }
};

}  // namespace

Tensor column_sums(const Tensor& x) {
  const int64_t columns = x.dim(-1);
  Tensor sums;
  count_kernel({x}, {});
  dispatch(x.dtype(), [&]<class T>() { sums = map_rows_reduce<Compute<T>>(x.device(), x.rows(), columns, 1, Sums<T>{x.data<T>(), columns}); });
  return sums;
}
