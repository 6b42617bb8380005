// embedding: y[b, t] = table[tokens[b, t]]: i32 [B, T], [V, C] -> [B, T, C]. torch.nn.Embedding.
#include "engine/map.h"
#include "engine/ops.h"
#include "engine/ops/indices.h"
#include "engine/profile.h"

namespace {

template <class T> struct Forward {
  const int32_t* tokens;
  const T* table;
  T* y;
  int64_t vocabulary, columns;
  template <class Team> HD void operator()(int64_t row, const Team& team) const {
    const int64_t token = tokens[row];
    T* out = y + row * columns;
    if (token < 0 || token >= vocabulary) return team.each(columns, [&](int64_t j) { out[j] = T(Compute<T>(NAN)); });
    const T* in = table + token * columns;
    team.each(columns, [&](int64_t j) { out[j] = in[j]; });
  }
};

template <class G> struct Clear {
  G* grad;
  HD void operator()(int64_t i) const { grad[i] = G(0); }
};

// A team owns `width` channels of the whole table and walks through the tokens in order: no number has two writers, and the sum of
// a token's gradients does not depend on how the channels are shared out.
template <class T, class G> struct Backward {
  const int32_t* tokens;
  const T* dy;
  G* grad;
  int64_t rows, vocabulary, columns, width;
  template <class Team> HD void operator()(int64_t part, const Team& team) const {
    using C = Compute<G>;
    const int64_t first = part * width, count = first + width < columns ? width : columns - first;
    for (int64_t row = 0; row < rows; row++) {
      const int64_t token = tokens[row];
      if (token < 0 || token >= vocabulary) continue;
      const T* from = dy + row * columns + first;
      G* to = grad + token * columns + first;
      team.each(count, [&](int64_t j) { to[j] = G(C(to[j]) + C(Compute<T>(from[j]))); });
    }
  }
};

}  // namespace

Tensor embedding(const Tensor& tokens, const Tensor& table) {
  const OpRange range("embedding");
  check(tokens.shape().rank() == 2 && table.shape().rank() == 2, "[embedding] tokens [B, T] and a table [V, C] expected, given ",
        tokens.shape(), " and ", table.shape());
  const int64_t vocabulary = table.dim(0), columns = table.dim(1), rows = tokens.size();
  check_indices("embedding", tokens, 0, vocabulary);
  Tensor y = Tensor::empty({tokens.dim(0), tokens.dim(1), columns}, table.dtype(), table.device());
  count_kernel({tokens, y}, {y});
  dispatch(table.dtype(), [&]<class T>() {
    map_rows(table.device(), rows, Forward<T>{tokens.data<int32_t>(), table.data<T>(), y.data<T>(), vocabulary, columns});
  });
  record("embedding", y, {table}, [=](const Tensor& dy) {
    auto [grad, beta] = into(table);
    if (beta == 0) count_kernel({}, {grad});
    count_kernel({tokens, dy}, {Into{Tensor::like(dy), 1}});   // a row of the table is read and written for each token
    const Device device = table.device();
    const int64_t width = device.kind == Device::cpu ? columns : 32;
    dispatch(grad.dtype(), [&]<class G>() {
      if (beta == 0) map(device, grad.size(), Clear<G>{grad.data<G>()});
      dispatch(dy.dtype(), [&]<class T>() {
        map_rows(device, (columns + width - 1) / width,
                 Backward<T, G>{tokens.data<int32_t>(), dy.data<T>(), grad.data<G>(), rows, vocabulary, columns, width});
      });
    });
  });
  return y;
}
