// mean_tokens: y[b, c] = mean over n of x[b, n, c]: [B, N, C] -> [B, C].
#include "engine/map.h"
#include "engine/ops.h"
#include "engine/profile.h"

namespace {

template <class T> struct Forward {
  const T* x;
  T* y;
  int64_t tokens, columns;
  template <class Team> HD void operator()(int64_t sample, const Team& team) const {
    using C = Compute<T>;
    const T* in = x + sample * tokens * columns;
    team.each(columns, [&](int64_t j) {
      C sum = 0;
      for (int64_t n = 0; n < tokens; n++) sum += C(in[n * columns + j]);
      y[sample * columns + j] = T(sum / C(tokens));
    });
  }
};

template <class T> struct Backward {
  const T* dy;
  T* dx;
  bool add;
  int64_t tokens, columns;
  template <class Team> HD void operator()(int64_t row, const Team& team) const {   // row of x
    using C = Compute<T>;
    const T* g = dy + row / tokens * columns;
    T* out = dx + row * columns;
    team.each(columns, [&](int64_t j) { out[j] = T((add ? C(out[j]) : C(0)) + C(g[j]) / C(tokens)); });
  }
};

}  // namespace

Tensor mean_tokens(const Tensor& x) {
  const OpRange range("mean_tokens");
  check(x.shape().rank() == 3, "[mean_tokens] [B, N, C] expected, given ", x.shape());
  const int64_t batch = x.dim(0), tokens = x.dim(1), columns = x.dim(2);
  Tensor y = Tensor::empty({batch, columns}, x.dtype(), x.device());
  count_kernel({x}, {y});
  dispatch(x.dtype(), [&]<class T>() { map_rows(x.device(), batch, Forward<T>{x.data<T>(), y.data<T>(), tokens, columns}); });
  record("mean_tokens", y, {x}, [=](const Tensor& dy) {
    auto target = into(x);
    count_kernel({dy}, {target});
    dispatch(dy.dtype(), [&]<class T>() {
      map_rows(dy.device(), batch * tokens, Backward<T>{dy.data<T>(), target.grad.data<T>(), target.beta != 0, tokens, columns});
    });
  });
  return y;
}
