// column_sums.cu: sums over rows as a pass of their own.
#include "engine/column_sums.h"

#include "engine/map.h"

namespace {

template <class T> struct Sums {
  const T* x;
  int64_t columns;
  template <class Team, class To> HD void operator()(int64_t row, const Team& team, To& sums) const {
    const auto in = team.read(x + row * columns, columns);
    team.each(columns, [&](auto j) { sums.add(0, j, in[j]); });
  }
};

}  // namespace

Tensor column_sums(const Tensor& x) {
  const int64_t columns = x.dim(-1);
  Tensor sums;
  count_kernel({x}, {});
  dispatch(x.dtype(), [&]<class T>() { sums = map_cells_reduce<T, 1>(x.device(), x.rows(), columns, Sums<T>{x.data<T>(), columns}); });
  return sums;
}
