// select_token: y[b] = x[b, index]: [B, N, C] -> [B, C].
#include "engine/map.h"
#include "engine/ops.h"
#include "engine/profile.h"

namespace {

template <class T> struct Forward {
  const T* x;
  T* y;
  int64_t tokens, columns, index;
  template <class Team> HD void operator()(int64_t sample, const Team& team) const {
    const T* in = x + (sample * tokens + index) * columns;
    T* out = y + sample * columns;
    team.each(columns, [&](int64_t j) { out[j] = in[j]; });
  }
};

template <class T> struct Backward {   // dy for the chosen token, 0 for the others
  const T* dy;
  T* dx;
  bool add;
  int64_t tokens, columns, index;
  template <class Team> HD void operator()(int64_t row, const Team& team) const {   // row of x
    using C = Compute<T>;
    const T* in = dy + row / tokens * columns;
    T* out = dx + row * columns;
    if (row % tokens == index) team.each(columns, [&](int64_t j) { out[j] = T((add ? C(out[j]) : C(0)) + C(in[j])); });
    else if (!add) team.each(columns, [&](int64_t j) { out[j] = T(C(0)); });
  }
};

}  // namespace

Tensor select_token(const Tensor& x, int64_t index) {
  const OpRange range("select_token");
  check(x.shape().rank() == 3 && index >= 0 && index < x.dim(1), "[select_token] token ", index, " of ", x.shape(), ", [B, N, C] expected");
  const int64_t batch = x.dim(0), tokens = x.dim(1), columns = x.dim(2);
  Tensor y = Tensor::empty({batch, columns}, x.dtype(), x.device());
  count_kernel({y}, {y});
  dispatch(x.dtype(), [&]<class T>() { map_rows(x.device(), batch, Forward<T>{x.data<T>(), y.data<T>(), tokens, columns, index}); });
  record("select_token", y, {x}, [=](const Tensor& dy) {
    auto target = into(x);
    count_kernel({dy}, {target.beta == 0 ? Moved(target) : Moved(int64_t(dy.bytes()), true)});   // to the other tokens nothing is added
    dispatch(dy.dtype(), [&]<class T>() {
      map_rows(dy.device(), batch * tokens, Backward<T>{dy.data<T>(), target.grad.data<T>(), target.beta != 0, tokens, columns, index});
    });
  });
  return y;
}
