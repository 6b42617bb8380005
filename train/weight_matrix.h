// weight_matrix.h: the independent matrices among a model's parameters, as the optimizers and constraints see them.
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "layers/parameter.h"

// One matrix of a parameter: all of it, or one of its groups of rows.
struct WeightMatrix {
  int parameter, group;
  int64_t offset;          // in the flat buffers
  int64_t rows, columns;   // out, in
  int64_t size() const { return rows * columns; }
  int64_t smaller() const { return std::min(rows, columns); }
  // |W|_2 / scale is the operator norm from RMS to RMS (root mean square) vector norms.
  double scale() const { return std::sqrt(double(rows) / double(columns)); }
};

// Those of all ParameterKind::matrix, largest work first, so that threads that take them in turn end together.
inline std::vector<WeightMatrix> weight_matrices(const ParameterStore& store) {
  std::vector<WeightMatrix> all;
  for (size_t p = 0; p < store.parameters().size(); p++) {
    const ParameterInfo& info = store.parameters()[p];
    if (info.kind != ParameterKind::matrix || info.size() == 0) continue;
    const int64_t rows = info.shape[0] / info.row_groups, columns = info.size() / info.shape[0];
    for (int64_t g = 0; g < info.row_groups; g++)
      all.push_back({int(p), int(g), info.offset + g * rows * columns, rows, columns});
  }
  std::stable_sort(all.begin(), all.end(), [](const WeightMatrix& a, const WeightMatrix& b) {
    return a.size() * a.smaller() > b.size() * b.smaller();
  });
  return all;
}
