// bounds_families: the bounds of whole ViTs, CSwins, MLPs and GPTs under ascent along their own gradients, in both norms.
#include "models/cswin.h"
#include "models/gpt.h"
#include "models/mlp_net.h"
#include "models/t2t_vit.h"
#include "models/vit.h"
#include "tests/layers/bound_search.h"

namespace {

// Weights small enough that the bound is not lost in the product of its layers.
Parts mild_parts() {
  Parts parts;
  parts.norm = {NormKind::none};
  parts.residual = ResidualPart::weighted;
  parts.weights.init = {InitRule::spectral};
  return parts;
}

struct Measured {
  Bound bound;
  Found found;
};

Measured measure(Model& model, const Shape& input, double radius) {
  model.store.finalize(DType::f64, 0, 2);
  Workers workers(1);
  SpectralWeights spectral(model.store);
  spectral.start(workers);
  spectral.iterate(true);
  SpectralNorms norms(model.store);
  norms.iterate(workers, 500);
  BoundTrace trace{norms, {}};
  const Bound bound = model.bound(radius, trace);
  const Map f = [&](const Tensor& x) { return model.forward(x, Mode{}); };
  Found found = ascend(input, radius, f, 3, 15);
  found.take(search(input, radius, f, 60));
  return {bound, found};
}

void check_measured(const Measured& m, double tight) {
  check_bound(m.bound, m.found, tight, tight);
  CHECK(m.bound.out.tokens == 1);
}

VitConfig small_vit() {
  VitConfig c;
  c.img_size = 4, c.patch_size = 2, c.in_chans = 1, c.num_classes = 3, c.embed_dim = 4, c.depth = 2, c.num_heads = 2, c.mlp_ratio = 2;
  c.parts = mild_parts();
  return c;
}

CSwinConfig small_cswin() {
  CSwinConfig c;
  c.img_size = 16, c.in_chans = 1, c.num_classes = 3, c.embed_dim = 4, c.depths = {1, 1}, c.num_heads = {2, 2}, c.stripe_widths = {1, 2}, c.mlp_ratio = 2;
  c.parts = mild_parts();
  return c;
}

}  // namespace

TEST_CASE("bounds: a whole ViT with every form of attention and residual") {
  for (const ResidualPart residual : {ResidualPart::weighted, ResidualPart::convex, ResidualPart::rezero})
    for (const Similarity similarity : {Similarity::dot, Similarity::cosine_bounded, Similarity::l2}) {
      CAPTURE(int(residual));
      CAPTURE(int(similarity));
      VitConfig config = small_vit();
      config.parts.residual = residual;
      if (residual == ResidualPart::rezero) config.parts.alpha = 0.2;
      config.parts.attention = {similarity, 2, 1, 0.1};
      config.mean_pool = residual == ResidualPart::convex;
      Vit model(config);
      check_measured(measure(model, {1, 4, 4}, 1.5), 5e-6);
    }
}

TEST_CASE("bounds: sixty blocks with LayerNorm go beyond what a double holds, and are still a number; every stage is a node of the tree") {
  VitConfig config = small_vit();
  config.depth = 60;
  config.parts.norm = {NormKind::layer, 1e-12};
  Vit model(config);
  model.store.finalize(DType::f64, 0, 1);
  SpectralNorms norms(model.store);
  Workers workers(1);
  norms.iterate(workers, 3);
  BoundTrace trace{norms, {}};
  const Bound bound = model.bound(1, trace);
  CHECK(bound.kind == BoundKind::estimate);
  CHECK(std::log10(bound.lipschitz) > 308);
  CHECK(std::isfinite(bound.lipschitz));
  REQUIRE(bound.tree);
  CHECK(bound.tree->join == BoundTree::product);
  REQUIRE(bound.tree->parts.size() == model.stages.size());
  Real product = 1;
  for (size_t i = 0; i < model.stages.size(); i++) {
    CHECK(bound.tree->parts[i]->name == model.stages[i].name);
    product *= bound.tree->parts[i]->lipschitz;
  }
  CHECK(product / bound.lipschitz == doctest::Approx(1));
}

TEST_CASE("bounds: a whole ViT with sigma_reparam, ball norms, norms behind the sum") {
  for (const WeightPart::Kind weight : {WeightPart::sigma_reparam, WeightPart::weight_norm})
    for (const NormPosition position : {NormPosition::pre, NormPosition::post}) {
      VitConfig config = small_vit();
      config.parts.weights.weight = {weight};
      config.parts.norm = {NormKind::ball};
      config.norm_position = position;
      Vit model(config);
      check_measured(measure(model, {1, 4, 4}, 1.5), 1e-6);
    }
}

TEST_CASE("bounds: a whole CSwin, plain and LipsFormer's") {
  for (const bool convs : {false, true}) {
    CAPTURE(convs);
    CSwinConfig config = small_cswin();
    config.conv_branches = convs;
    CSwin model(config);
    check_measured(measure(model, {1, 256, 1}, 1.5), 0);
  }
}

TEST_CASE("bounds: a whole MLP is the product of its layers, and comes near to it") {
  for (const Activation activation : {Activation::relu, Activation::gelu_scaled}) {
    MlpConfig config;
    config.img_size = 2, config.in_chans = 1, config.num_classes = 3, config.embed_dim = 6, config.layers = 3;
    config.parts = mild_parts();
    config.parts.activation = activation;
    MlpNet model(config);
    check_measured(measure(model, {1, 1, 4}, 4), 0.05);
  }
}

// Tokens are embedded first: with a row of its own for each position the embedded tokens can be moved anywhere.
TEST_CASE("bounds: a whole GPT from its embedded tokens on") {
  GptConfig config;
  config.vocab_size = config.context = 5, config.embed_dim = 8, config.depth = 2, config.num_heads = 2, config.mlp_ratio = 2, config.qkv_bias = false;
  config.logit_scale = 1.5;
  config.parts = mild_parts();
  config.parts.residual = ResidualPart::convex;
  config.parts.activation = Activation::gelu_scaled;
  config.parts.attention = {.by_width = true, .separate = true, .groups = AttentionPart::heads};
  config.parts.weights.bias = false;
  Gpt model(config);
  model.store.finalize(DType::f64, 1, 2);
  const Tensor tokens = Tensor::from(Shape{1, 5}, std::vector<int32_t>{0, 1, 2, 3, 4}, DType::i32);
  const Tensor table = model.embed.raw();
  // x stands in for the embedding: its gradient is the table's.
  const auto logits = [&](const std::vector<double>& x) {
    fill(table, x);
    return model.forward(tokens, Mode{});
  };
  const double radius = std::sqrt(8.0);
  std::vector<double> rim(40);
  for (size_t i = 0; i < 40; i++) rim[i] = 10 * normal_number("rim", int64_t(i));
  clip_tokens(rim, 8, radius);
  fill(table, rim);
  Workers workers(1);
  SpectralNorms norms(model.store);
  norms.iterate(workers, 500);
  BoundTrace trace{norms, {}};
  const Bound bound = model.bound(0, trace);
  CHECK(bound.out.tokens == 5);
  const Found found = search({1, 5, 8}, radius, [&](const Tensor& x) { return logits(x.values()); });
  check_bound(bound, found, 0.05, 0.05);
  // Later tokens are never seen by earlier ones.
  std::vector<double> other = rim;
  for (size_t i = 32; i < 40; i++) other[i] = -rim[i];
  const std::vector<double> a = logits(rim).values(), b = logits(other).values();
  for (size_t i = 0; i < 20; i++) CHECK(a[i] == b[i]);
  CHECK(a != b);
}

TEST_CASE("bounds: a T2T-ViT blames its first token transformer") {
  T2tConfig config;
  config.img_size = 16, config.in_chans = 1, config.num_classes = 3, config.embed_dim = 4, config.depth = 1, config.num_heads = 2, config.token_dim = 4;
  T2tVit model(config);
  model.store.finalize(DType::f64, 0, 2);
  SpectralNorms norms(model.store);
  BoundTrace trace{norms, {}};
  const Bound bound = model.bound(1, trace);
  CHECK(bound.kind == BoundKind::unbounded);
  CHECK(bound.blame == model.attention1.name);
  CHECK(std::isinf(bound.rms));
}
