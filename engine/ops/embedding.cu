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

// On the CPU: the tokens in order.
template <class T, class G> struct AddInOrder {
  const int32_t* tokens;
  const T* dy;
  G* grad;
  int64_t rows, vocabulary, columns;
  template <class Team> HD void operator()(int64_t, const Team& team) const {
    using C = Compute<G>;
    for (int64_t row = 0; row < rows; row++) {
      const int64_t token = tokens[row];
      if (token < 0 || token >= vocabulary) continue;
      const T* from = dy + row * columns;
      G* to = grad + token * columns;
      team.each(columns, [&](int64_t j) { to[j] = G(C(to[j]) + C(Compute<T>(from[j]))); });
    }
  }
};

// On a device: the rows sorted by their tokens, equal ones in order. A row's place is the number of those before it, so that all find theirs at once.
struct Sort {
  const int32_t* tokens;
  int32_t *order, *alike;   // [rows]: the row at a place; how many of its token stand from there on
  int64_t rows;
  template <class Team> HD void operator()(int64_t row, const Team& team) const {
    const int32_t mine = tokens[row];
    const int32_t place = team.template sum<int32_t>(rows, [&](int64_t other) {
      return int32_t(tokens[other] < mine || (tokens[other] == mine && other < row));
    });
    const int32_t from_here = team.template sum<int32_t>(rows - row, [&](int64_t i) { return int32_t(tokens[row + i] == mine); });
    if (team.leads()) order[place] = int32_t(row), alike[place] = from_here;
  }
};

// A team owns `width` channels of a token, which the first place with that token stands for: no number has two writers, and the order is the CPU's.
template <class T, class G> struct AddSorted {
  const int32_t *tokens, *order, *alike;
  const T* dy;
  G* grad;
  int64_t vocabulary, columns, parts;
  static constexpr int64_t width = 32;
  template <class Team> HD void operator()(int64_t i, const Team& team) const {
    using C = Compute<G>;
    const int64_t place = i / parts, first = i % parts * width, token = tokens[order[place]];
    if (token < 0 || token >= vocabulary || (place > 0 && tokens[order[place - 1]] == token)) return;
    G* to = grad + token * columns + first;
    team.each(first + width < columns ? width : columns - first, [&](int64_t j) {
      C sum = to[j];
      for (int32_t n = 0; n < alike[place]; n++) sum += C(Compute<T>(dy[order[place + n] * columns + first + j]));
      to[j] = G(sum);
    });
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
    const Device device = table.device();
    const bool sorts = device.kind == Device::cuda || dry_run();
    const Tensor order = sorts ? Tensor::empty({2, rows}, DType::i32, device) : Tensor();
    if (sorts) count_kernel({tokens}, {order});
    count_kernel({tokens, order, dy}, {Into{Tensor::like(dy), 1}});   // a row of the table is read and written for each token
    dispatch(grad.dtype(), [&]<class G>() {
      if (beta == 0) map(device, grad.size(), Clear<G>{grad.data<G>()});
      dispatch(dy.dtype(), [&]<class T>() {
        const int32_t* numbers = tokens.data<int32_t>();
        if (!sorts) return map_rows(device, 1, AddInOrder<T, G>{numbers, dy.data<T>(), grad.data<G>(), rows, vocabulary, columns});
        int32_t *places = order.data<int32_t>(), *alike = places + rows;
        const int64_t width = AddSorted<T, G>::width, parts = (columns + width - 1) / width;
        map_rows(device, rows, Sort{numbers, places, alike, rows});
        map_rows(device, rows * parts, AddSorted<T, G>{numbers, places, alike, dy.data<T>(), grad.data<G>(), vocabulary, columns, parts});
      });
    });
  });
  return y;
}
