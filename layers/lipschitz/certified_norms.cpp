// certified_norms.cpp: one proof, or a few, for each weight. Weights are independent. Where the model runs on a GPU, its matrices are proved there.
#include "layers/lipschitz/certified_norms.h"

#include <algorithm>

#include "engine/proved_norms.h"
#include "layers/lipschitz/conv_norm.h"
#include "layers/lipschitz/gram_norm.h"

namespace {

// A whole matrix, or one block of its rows; whole and sliding are no blocks.
struct Piece {
  static constexpr int whole = -1, sliding = -2;
  int weight, block;
  int64_t rows, columns, work;
  int64_t first() const { return std::max(0, block) * rows * columns; }   // its place in the weight
};

// The largest first, so that threads end together.
std::vector<Piece> pieces_of(const ParameterStore& store, const SpectralNorms& estimates) {
  std::vector<Piece> pieces;
  for (size_t i = 0; i < store.parameters().size(); i++) {
    if (!estimates.has(int(i))) continue;
    const ParameterInfo& info = store.parameters()[i];
    const int64_t rows = info.shape[0], columns = info.size() / rows, blocks = info.row_blocks;
    const auto work = [&](int64_t r) { return std::min(r, columns) * std::min(r, columns) * std::max(r, columns); };
    if (info.kind == ParameterKind::depthwise) {
      pieces.push_back({int(i), Piece::whole, rows, columns, rows * info.map_height * info.map_width * 100});
      continue;
    }
    pieces.push_back({int(i), Piece::whole, rows, columns, work(rows)});
    if (info.stride > 0) pieces.push_back({int(i), Piece::sliding, rows, columns, 100 * work(rows)});   // a matrix for each frequency
    for (int b = 0; b < blocks && blocks > 1; b++) pieces.push_back({int(i), b, rows / blocks, columns, work(rows / blocks)});
  }
  std::stable_sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) { return a.work > b.work; });
  return pieces;
}

double estimate_of(const Piece& p, const SpectralNorms& estimates) {
  return p.block < 0 ? estimates.sigma(p.weight) : estimates.block_sigmas(p.weight)[size_t(p.block)];
}

// Of matrices, where the model runs. The Gram matrices are given back at once.
std::vector<double> bounds_on_device(const ParameterStore& store, const std::vector<Piece>& pieces, const SpectralNorms& estimates, double tolerance) {
  std::vector<MatrixBatch::Matrix> matrices;
  std::vector<double> sigmas;
  for (const Piece& p : pieces) {
    matrices.push_back({store.parameters()[size_t(p.weight)].offset + p.first(), p.rows, p.columns});
    sigmas.push_back(estimate_of(p, estimates));
  }
  const Shape shape{int64_t(pieces.size())};
  const Tensor bounds = Tensor::zeros(shape, DType::f64, store.device());
  const ProvedNorms proofs(matrices, store.device());
  proofs.look(store.values_in_use());
  proofs.bound(Tensor::from(shape, sigmas, DType::f64, store.device()), {}, bounds, {.first = tolerance, .tolerance = tolerance});
  return bounds.values();
}

double bound_on_host(const ParameterStore& store, const Piece& p, const SpectralNorms& estimates, double tolerance) {
  const ParameterInfo& info = store.parameters()[size_t(p.weight)];
  const Tensor w = store.raw(p.weight);
  const auto bound = [&]<class T>(const T* values) {
    if (info.kind == ParameterKind::depthwise)
      return depthwise_upper_bound(values, p.rows, info.shape[2], info.map_height, info.map_width, estimates.sigma(p.weight), tolerance);
    if (p.block == Piece::sliding)
      return conv_upper_bound(values, {info.shape[0], info.shape[1], info.shape[2], info.stride, info.padding, info.map_height, info.map_width});
    return GramMatrix(values + p.first(), p.rows, p.columns, GramMatrix::Sums::f32).upper_bound(estimate_of(p, estimates), tolerance);
  };
  return w.dtype() == DType::f64 ? bound(w.data<double>()) : bound(w.data<float>());   // what weights are kept in
}

}  // namespace

void CertifiedNorms::measure(Workers& workers, const SpectralNorms& estimates, double tolerance) {
  std::vector<Piece> pieces = pieces_of(store_, estimates);
  for (const Piece& p : pieces) block_sigmas_[size_t(p.weight)].assign(size_t(store_.parameters()[size_t(p.weight)].row_blocks), 0.0);
  const auto keep = [&](const Piece& p, double sigma) {
    (p.block == Piece::sliding ? sliding_[p.weight] : p.block < 0 ? sigma_[p.weight] : block_sigmas_[p.weight][p.block]) = sigma;
  };
  auto on_host = pieces.begin();
  if (store_.device() != Device{}) {
    on_host = std::stable_partition(pieces.begin(), pieces.end(), [&](const Piece& p) {
      return p.block != Piece::sliding && store_.parameters()[size_t(p.weight)].kind == ParameterKind::matrix;
    });
    const std::vector<Piece> matrices(pieces.begin(), on_host);
    const std::vector<double> bounds = bounds_on_device(store_, matrices, estimates, tolerance);
    for (size_t n = 0; n < matrices.size(); n++) keep(matrices[n], bounds[n]);
  }
  workers.run(pieces.end() - on_host, [&](int64_t n) { keep(on_host[n], bound_on_host(store_, on_host[n], estimates, tolerance)); });
  for (const Piece& p : pieces) {
    const Parameter kernel{&store_, p.weight};
    if (p.block == Piece::sliding) sliding_[p.weight] = std::min(sliding_[p.weight], NormSource::sliding_sigma(kernel));
    if (block_sigmas_[p.weight].size() == 1) block_sigmas_[p.weight][0] = sigma_[p.weight];
  }
}
