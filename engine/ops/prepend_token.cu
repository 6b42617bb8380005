// prepend_token: y[b] = (token, x[b, 0], x[b, 1], ...): [B, N, C], [C] -> [B, N + 1, C]. The class token of ViT.
#include "engine/map.h"
#include "engine/ops.h"
#include "engine/profile.h"

namespace {

template <class T> struct Forward {
  const T* x;
  const Compute<T>* token;
  T* y;
  int64_t tokens, columns;
  template <class Team> HD void operator()(int64_t row, const Team& team) const {   // row of y
    const int64_t sample = row / (tokens + 1), n = row % (tokens + 1);
    T* out = y + row * columns;
    if (n == 0) return team.each(columns, [&](int64_t j) { out[j] = T(token[j]); });
    const T* in = x + (sample * tokens + n - 1) * columns;
    team.each(columns, [&](int64_t j) { out[j] = in[j]; });
  }
};

template <class T> struct Backward {   // dx: dy without its first tokens
  const T* dy;
  T* dx;
  bool add;
  int64_t tokens, columns;
  template <class Team> HD void operator()(int64_t row, const Team& team) const {   // row of x
    using C = Compute<T>;
    const T* in = dy + (row + row / tokens + 1) * columns;
    T* out = dx + row * columns;
    team.each(columns, [&](int64_t j) { out[j] = T((add ? C(out[j]) : C(0)) + C(in[j])); });
  }
};

template <class T> struct TokenSums {   // dtoken = sum over samples of dy[b, 0]
  const T* dy;
  int64_t tokens, columns;
  template <class Team> HD void operator()(int64_t sample, const Team& team, const ColumnSums<Compute<T>>& sums) const {
    const T* in = dy + sample * (tokens + 1) * columns;
    team.each(columns, [&](int64_t j) { sums.add(0, j, Compute<T>(in[j])); });
  }
};

}  // namespace

Tensor prepend_token(const Tensor& x, const Tensor& token) {
  const OpRange range("prepend_token");
  check(x.shape().rank() == 3 && token.size() == x.dim(2), "[prepend_token] [B, N, C] and [C] expected, given ", x.shape(), " and ",
        token.shape());
  const int64_t batch = x.dim(0), tokens = x.dim(1), columns = x.dim(2);
  Tensor y = Tensor::empty({batch, tokens + 1, columns}, x.dtype(), x.device());
  const Tensor first = computed(token, x.dtype());
  count_kernel({x, first}, {y});
  dispatch(x.dtype(), [&]<class T>() {
    map_rows(x.device(), y.rows(), Forward<T>{x.data<T>(), first.data<Compute<T>>(), y.data<T>(), tokens, columns});
  });
  record("prepend_token", y, {x, token}, [=](const Tensor& dy) {
    const Into target = x.wants_grad() ? into(x) : Into{Tensor(), 0};
    count_kernel({target.grad}, {target});
    if (token.wants_grad()) count_kernel({batch * columns * int64_t(size_of(dy.dtype()))}, {});
    dispatch(dy.dtype(), [&]<class T>() {
      using C = Compute<T>;
      if (target.grad)
        map_rows(dy.device(), batch * tokens, Backward<T>{dy.data<T>(), target.grad.data<T>(), target.beta != 0, tokens, columns});
      if (token.wants_grad())
        add_sums<C>(map_rows_reduce<C>(dy.device(), batch, columns, 1, TokenSums<T>{dy.data<T>(), tokens, columns}), 0, token);
    });
  });
  return y;
}
