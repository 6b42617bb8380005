// certified_norms: what a bound is made of when it is called certified, against exact singular values.
#include "layers/lipschitz/certified_norms.h"

#include "bound_search.h"
#include "layers/attention.h"
#include "layers/depthwise_conv.h"
#include "layers/lipschitz/singular_value.h"

namespace {

double exact_norm(const Parameter& p, int64_t first_row, int64_t rows) {
  const Tensor w = p.raw();
  const int64_t columns = w.size() / w.dim(0);
  const std::vector<double> values = w.values();
  Matrix turned(columns, rows);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < columns; c++) turned.at(c, r) = values[size_t((first_row + r) * columns + c)];
  return rows <= columns ? singular_values(turned).front() : largest_singular_value(turned.values.data(), columns, rows);
}

}  // namespace

TEST_CASE("certified norms: of matrices, heads and convolutions, never below the truth and within half a percent, on both devices") {
  for (const auto& [dtype, device] : std::vector<std::pair<DType, Device>>{{DType::f32, {}}, {DType::f64, {}}, {DType::f32, {Device::cuda}}}) {
    CAPTURE(dtype);
    CAPTURE(device);
    ParameterStore store;
    const Scope root(store, {.init = {InitRule::spectral}});
    const Attention fused(root / "fused", 24, {}, {.heads = 4, .window_height = 1, .window_width = 5});
    const Attention separate(root / "separate", 16, {.separate = true}, {.heads = 2, .window_height = 1, .window_width = 5});
    const Linear wide(root / "wide", 700, 20);
    const DepthwiseConv conv(root / "conv", 5, 7, 6, 9);
    store.finalize(dtype, 0, 3, device);
    Workers workers(2);
    for (const int iterations : {0, 1, 300}) {   // whatever the estimates are worth
      SpectralNorms estimates(store);
      estimates.iterate(workers, iterations);
      CertifiedNorms certified(store);
      certified.measure(workers, estimates);
      CHECK(certified.kind() == BoundKind::certified);
      for (const Linear* l : {&fused.qkv, &fused.proj, &separate.q_proj, &separate.v_proj, &wide}) {
        CAPTURE(l->name);
        const Parameter& w = l->weight.raw;
        const double exact = exact_norm(w, 0, w.raw().dim(0));
        CHECK(certified.sigma(w) >= exact * (1 - 1e-13));
        CHECK(certified.sigma(w) <= exact * 1.005);
        const int64_t blocks = w.info().row_blocks, rows = w.raw().dim(0) / blocks;
        REQUIRE(int64_t(certified.block_sigmas(w).size()) == blocks);
        for (int64_t b = 0; b < blocks; b++) {
          const double of_block = exact_norm(w, b * rows, rows);
          CHECK(certified.block_sigmas(w)[size_t(b)] >= of_block * (1 - 1e-13));
          CHECK(certified.block_sigmas(w)[size_t(b)] <= of_block * 1.005);
        }
      }
      CHECK(fused.qkv.weight.raw.info().row_blocks == 12);
      if (iterations == 300) {
        CHECK(certified.sigma(conv.weight.raw) >= estimates.sigma(conv.weight.raw) * (1 - 1e-6));
        CHECK(certified.sigma(conv.weight.raw) <= estimates.sigma(conv.weight.raw) * 1.005);
      }
    }
  }
}

TEST_CASE("certified norms: a weight that is not finite has no bound") {
  for (const Device device : {Device{}, Device{Device::cuda}}) {
    ParameterStore store;
    const Scope root(store, {});
    const Linear linear(root / "linear", 6, 4);
    const DepthwiseConv conv(root / "conv", 2, 3, 4, 4);
    store.finalize(DType::f32, 0, 3, device);
    linear.weight.raw.raw().data<float>()[3] = NAN;
    conv.weight.raw.raw().data<float>()[3] = INFINITY;
    store.host_changed();
    Workers workers(1);
    SpectralNorms estimates(store);
    estimates.iterate(workers);
    CertifiedNorms certified(store);
    certified.measure(workers, estimates);
    CHECK(std::isinf(certified.sigma(linear.weight.raw)));
    CHECK(std::isinf(certified.sigma(conv.weight.raw)));
  }
}
