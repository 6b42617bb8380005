// certified_norms.cpp: one proof, or a few, for each weight. Weights are independent.
#include "layers/lipschitz/certified_norms.h"

#include <algorithm>

#include "layers/lipschitz/conv_norm.h"
#include "layers/lipschitz/gram_norm.h"

namespace {

// A whole matrix, or one block of its rows; whole and sliding are no blocks.
struct Piece {
  static constexpr int whole = -1, sliding = -2;
  int weight, block;
  int64_t rows, columns, work;
};

}  // namespace

void CertifiedNorms::measure(Workers& workers, const SpectralNorms& estimates, double tolerance) {
  std::vector<Piece> pieces;
  for (size_t i = 0; i < sigma_.size(); i++) {
    if (!estimates.has(int(i))) continue;
    const ParameterInfo& info = store_.parameters()[i];
    const int64_t rows = info.shape[0], columns = info.size() / rows, blocks = info.row_blocks;
    const auto work = [&](int64_t r) { return std::min(r, columns) * std::min(r, columns) * std::max(r, columns); };
    block_sigmas_[i].assign(size_t(blocks), 0.0);
    if (info.kind == ParameterKind::depthwise) {
      pieces.push_back({int(i), Piece::whole, rows, columns, rows * info.map_height * info.map_width * 100});
      continue;
    }
    pieces.push_back({int(i), Piece::whole, rows, columns, work(rows)});
    if (info.stride > 0) pieces.push_back({int(i), Piece::sliding, rows, columns, 100 * work(rows)});   // a matrix for each frequency
    for (int b = 0; b < blocks && blocks > 1; b++) pieces.push_back({int(i), b, rows / blocks, columns, work(rows / blocks)});
  }
  // The largest first, so that threads end together.
  std::stable_sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) { return a.work > b.work; });
  workers.run(int64_t(pieces.size()), [&](int64_t n) {
    const Piece& p = pieces[n];
    const ParameterInfo& info = store_.parameters()[p.weight];
    const Tensor w = store_.raw(p.weight);
    const auto bound = [&]<class T>(const T* values) {
      if (info.kind == ParameterKind::depthwise)
        return depthwise_upper_bound(values, p.rows, info.shape[2], info.map_height, info.map_width, estimates.sigma(p.weight), tolerance);
      if (p.block == Piece::sliding)
        return conv_upper_bound(values, {info.shape[0], info.shape[1], info.shape[2], info.stride, info.padding, info.map_height, info.map_width});
      const double estimate = p.block < 0 ? estimates.sigma(p.weight) : estimates.block_sigmas(p.weight)[p.block];
      const GramMatrix gram(values + std::max(0, p.block) * p.rows * p.columns, p.rows, p.columns, GramMatrix::Sums::f32);
      return gram.upper_bound(estimate, tolerance);
    };
    const double sigma = w.dtype() == DType::f64 ? bound(w.data<double>()) : bound(w.data<float>());   // what weights are kept in
    (p.block == Piece::sliding ? sliding_[p.weight] : p.block < 0 ? sigma_[p.weight] : block_sigmas_[p.weight][p.block]) = sigma;
  });
  for (const Piece& p : pieces) {
    const Parameter kernel{&store_, p.weight};
    if (p.block == Piece::sliding) sliding_[p.weight] = std::min(sliding_[p.weight], NormSource::sliding_sigma(kernel));
    if (block_sigmas_[p.weight].size() == 1) block_sigmas_[p.weight][0] = sigma_[p.weight];
  }
}
