// The bound of a whole model: no pair of images is stretched farther, and a model without a bound blames the layer that has none.
#include <doctest/doctest.h>
#include <omp.h>

#include "models/swin.h"

namespace {

SwinConfig tiny(Similarity similarity) {
  SwinConfig c;
  c.img_size = 8, c.patch_size = 2, c.in_chans = 1, c.num_classes = 3, c.embed_dim = 4;
  c.depths = {1, 1}, c.num_heads = {1, 2};
  c.window_size = 2;
  c.mlp_ratio = 2;
  c.shift_windows = false;
  c.conv_branches = true;
  c.norm_position = NormPosition::post;
  c.parts.norm.kind = NormKind::center;
  c.parts.residual = ResidualPart::weighted;
  c.parts.attention = {similarity, 2, 1, 0.1};
  c.parts.weights.init = {InitRule::spectral};
  return c;
}

struct Measured {
  Bound network;
  std::vector<BoundTrace::Layer> layers;
};

Measured bound_of(const Swin& model, double radius) {
  Workers workers(1);
  SpectralNorms norms(model.store);
  norms.iterate(workers, 500);
  BoundTrace trace{norms, {}};
  const Bound network = model.bound(radius, trace);
  return {network, trace.layers};
}

// The largest |f(x) - f(y)| / |x - y| of random images whose patches are at most `radius` long, and the longest logits.
std::pair<double, double> measure(const Swin& model, double radius) {
  omp_set_num_threads(1);   // a model this small only waits for its threads
  const RandomStream stream(4, "images");
  double stretch = 0, reach = 0;
  for (int k = 0; k < 300; k++) {
    const double size = k % 3 == 0 ? 1e-3 : 1, step = k % 2 ? 1e-4 : 0.5;
    std::vector<double> x(64), y(64);
    for (int p = 0; p < 16; p++) {
      double squares_x = 0, squares_y = 0;
      for (int i = 4 * p; i < 4 * p + 4; i++) {
        const Words w = stream.words(uint32_t(k), uint64_t(i), 0);
        x[i] = size * normal_from(w[0], w[1]);
        y[i] = x[i] + size * step * normal_from(w[2], w[3]);
        squares_x += x[i] * x[i];
        squares_y += y[i] * y[i];
      }
      for (int i = 4 * p; i < 4 * p + 4; i++) {
        x[i] *= std::min(1.0, radius / std::sqrt(squares_x));
        y[i] *= std::min(1.0, radius / std::sqrt(squares_y));
      }
    }
    const auto f = [&](const std::vector<double>& v) { return model.forward(Tensor::from(Shape{1, 16, 4}, v, DType::f64), Mode{}).values(); };
    const std::vector<double> fx = f(x), fy = f(y);
    double in = 0, out = 0, longest = 0;
    for (int i = 0; i < 64; i++) in += (x[i] - y[i]) * (x[i] - y[i]);
    for (size_t i = 0; i < fx.size(); i++) {
      out += (fx[i] - fy[i]) * (fx[i] - fy[i]);
      longest += fx[i] * fx[i];
    }
    stretch = std::max(stretch, std::sqrt(out / in));
    reach = std::max(reach, std::sqrt(longest));
  }
  return {stretch, reach};
}

}  // namespace

TEST_CASE("bounds: a whole bounded model") {
  for (const NormKind norm : {NormKind::center, NormKind::none, NormKind::layer}) {
    SwinConfig config = tiny(Similarity::cosine_bounded);
    config.parts.norm.kind = norm;
    Swin model(config);
    model.store.finalize(DType::f64, 0, 2);
    const auto [network, layers] = bound_of(model, 1.5);
    const auto [stretch, reach] = measure(model, 1.5);
    CHECK(network.kind == BoundKind::estimate);
    CHECK(std::isfinite(network.lipschitz));
    CHECK(stretch > 0);
    CHECK(stretch <= network.lipschitz);
    CHECK(reach <= network.out.radius);
    CHECK(network.out.width == 3);
    CHECK(network.out.tokens == 1);
  }
}

TEST_CASE("bounds: pixels are bounded, so dot-product attention behind them is too") {
  for (const auto position : {NormPosition::pre, NormPosition::post}) {
    SwinConfig config = tiny(Similarity::dot);
    config.norm_position = position;
    config.shift_windows = true;
    Swin model(config);
    model.store.finalize(DType::f64, 0, 2);
    const Bound network = bound_of(model, 1.5).network;
    const auto [stretch, reach] = measure(model, 1.5);
    CHECK(network.kind == BoundKind::estimate);
    CHECK(stretch <= network.lipschitz);
    CHECK(reach <= network.out.radius);
  }
}

TEST_CASE("bounds: an unbounded model blames the first layer that has none") {
  Swin model(tiny(Similarity::cosine));
  model.store.finalize(DType::f64, 0, 2);
  const auto [network, layers] = bound_of(model, 1.5);
  CHECK(network.kind == BoundKind::unbounded);
  CHECK(std::isinf(network.lipschitz));
  CHECK(network.blame == "layers.0.blocks.0.attn");
  for (const BoundTrace::Layer& layer : layers)   // the layers that have a bound still say it
    if (layer.kind == "Mlp" || layer.kind == "DepthwiseConv") CHECK(std::isfinite(layer.bound.lipschitz));
  // A branch that is switched off cannot be blamed.
  const Tensor alpha = model.levels[0].blocks[0].core.branch1.alpha.raw();
  std::fill_n(alpha.data<double>(), alpha.size(), 0.0);
  CHECK(bound_of(model, 1.5).network.blame == "layers.1.blocks.0.attn");
}
