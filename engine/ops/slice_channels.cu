// slice_channels: y = x[..., begin : begin + count].
#include "engine/map.h"
#include "engine/ops.h"
#include "engine/profile.h"

namespace {

template <class T> struct Forward {
  const T* x;
  T* y;
  int64_t columns, begin, count;
  template <class Team> HD void operator()(int64_t row, const Team& team) const {
    const T* in = x + row * columns + begin;
    T* out = y + row * count;
    team.each(count, [&](int64_t j) { out[j] = in[j]; });
  }
};

template <class T> struct Backward {   // dy in the slice, 0 beside it
  const T* dy;
  T* dx;
  bool add;
  int64_t columns, begin, count;
  template <class Team> HD void operator()(int64_t row, const Team& team) const {
    using C = Compute<T>;
    const T* in = dy + row * count;
    T* out = dx + row * columns;
    if (!add) {
      team.each(begin, [&](int64_t j) { out[j] = T(C(0)); });
      team.each(columns - begin - count, [&](int64_t j) { out[begin + count + j] = T(C(0)); });
    }
    team.each(count, [&](int64_t j) { out[begin + j] = T((add ? C(out[begin + j]) : C(0)) + C(in[j])); });
  }
};

}  // namespace

Tensor slice_channels(const Tensor& x, int64_t begin, int64_t count) {
  const OpRange range("slice_channels");
  const int64_t columns = x.dim(-1);
  check(begin >= 0 && count > 0 && begin + count <= columns, "[slice_channels] channels ", begin, "+", count, " of ", x.shape());
  std::vector<int64_t> dims = x.shape().dims();
  dims.back() = count;
  Tensor y = Tensor::empty(Shape(dims), x.dtype(), x.device());
  count_kernel({y}, {y});
  dispatch(x.dtype(), [&]<class T>() { map_rows(x.device(), x.rows(), Forward<T>{x.data<T>(), y.data<T>(), columns, begin, count}); });
  record("slice_channels", y, {x}, [=](const Tensor& dy) {
    auto target = into(x);
    count_kernel({dy}, {target.beta == 0 ? Moved(target) : Moved(int64_t(dy.bytes()), true)});   // beside the slice nothing is added
    dispatch(dy.dtype(), [&]<class T>() {
      map_rows(dy.device(), dy.rows(), Backward<T>{dy.data<T>(), target.grad.data<T>(), target.beta != 0, columns, begin, count});
    });
  });
  return y;
}
