// bounds_parts: the constants of norms, residuals, activations, overlapping convolutions and weight parts, in both norms.
#include "bound_search.h"
#include "layers/depthwise_conv.h"
#include "layers/lipschitz/certified_norms.h"
#include "layers/mlp.h"
#include "layers/patch_embed.h"
#include "layers/residual.h"

namespace {

void fill_buffer(const Buffer& buffer, const std::vector<double>& values) { fill(buffer(), values); }

}  // namespace

TEST_CASE("bounds: rms norm is steepest at zero, and resets the domain") {
  Bench bench;
  const Norm norm(bench.root / "norm", 5, NormPart{NormKind::rms, 1e-2}), sharp(bench.root / "sharp", 5, NormPart{NormKind::rms, 0});
  BoundTrace& trace = bench.draw();
  const auto f = [&](const Tensor& x) { return norm(x, Mode{}); };
  Found found = search({1, 2, 5}, 50, f);
  found.take(ascend({1, 2, 5}, 0.1, f));
  check_bound(norm.bound({2, 5, 50}, trace), found, 0.95, 0.95);
  CHECK(search({1, 2, 5}, 1e6, f).reach >= 0.5 * norm.bound({2, 5}, trace).out.radius);
  CHECK(sharp.bound({2, 5, 1}, trace).blame == "sharp");
}

TEST_CASE("bounds: the ball moves no two tokens apart and lets none out") {
  Bench bench;
  NormPart part{NormKind::ball};
  part.ball_radius = 0.5;
  const Norm norm(bench.root / "norm", 4, part);
  BoundTrace& trace = bench.draw();
  CHECK(bench.store.parameters().empty());
  const Bound bound = norm.bound({3, 4, 10}, trace);
  CHECK(bound.lipschitz == 1);
  CHECK(bound.out.radius == doctest::Approx(1));   // RMS 0.5 over 4 channels
  const Found found = search({1, 3, 4}, 10, [&](const Tensor& x) { return norm(x, Mode{}); });
  check_bound(bound, found, 0.99, 0.99);
  CHECK(found.reach == doctest::Approx(1).epsilon(1e-6));
  CHECK(norm.bound({3, 4, 0.3}, trace).out.radius == 0.3);   // inside, nothing happens
}

TEST_CASE("bounds: norms over the batch are a diagonal map in evaluation") {
  for (const NormKind kind : {NormKind::batch, NormKind::moving_average_batch, NormKind::power, NormKind::unified}) {
    CAPTURE(int(kind));
    Bench bench;
    const Norm norm(bench.root / "norm", 3, NormPart{kind, 1e-3});
    BoundTrace& trace = bench.draw();
    bench.set(norm.weight, {0.7, -2, 1.1});
    fill_buffer(norm.running_var, {0.4, 0.09, 3});
    if (norm.running_mean) fill_buffer(norm.running_mean, {0.5, -1, 2});
    const Bound bound = norm.bound({4, 3, 2}, trace);
    CHECK(bound.kind == BoundKind::certified);
    CHECK(bound.lipschitz == doctest::Approx(2 / std::sqrt(0.091)));   // of the channel that is stretched most
    check_bound(bound, search({1, 4, 3}, 2, [&](const Tensor& x) { return norm(x, Mode{}); }), 0.9, 0.9);
    CHECK(search({1, 4, 3}, 2, [&](const Tensor& x) { return norm(x, Mode{}); }).reach >= 0.6 * bound.out.radius);
  }
}

TEST_CASE("bounds: every residual") {
  struct Case {
    ResidualPart part;
    double start;
    bool norm_behind;
  };
  for (const Case& c : {Case{ResidualPart::convex, 0.25, false}, Case{ResidualPart::rezero, 0.5, false}, Case{ResidualPart::admin, 1, true},
                        Case{ResidualPart::deepnorm, 1.7, true}, Case{ResidualPart::weighted, 0.5, true}}) {
    CAPTURE(int(c.part));
    Bench bench;
    const Mlp mlp(bench.root / "mlp", 4, 6);
    const ResidualBranch branch(bench.root / "branch", 4, c.part, c.start, 0.3);
    const Norm norm(bench.root / "norm", 4, NormPart{c.norm_behind ? NormKind::layer : NormKind::none, 0.1});
    BoundTrace& trace = bench.draw(0.6);
    const Domain in{2, 4, 1.5};
    const Bound inner = mlp.bound(in, trace), sum = branch.bound(in, inner, trace), bound = then(sum, norm.bound(sum.out, trace));
    const auto f = [&](const Tensor& x) { return branch(x, mlp(x), Mode{}); };
    const auto g = [&](const Tensor& x) { return branch.with_norm(norm, x, mlp(x), false, Mode{}).normalised; };
    Found found = ascend({1, 2, 4}, 1.5, f, 6);
    found.take(search({1, 2, 4}, 1.5, f));
    check_bound(sum, found, 0.25, 0.25);
    check_bound(bound, search({1, 2, 4}, 1.5, g), c.norm_behind ? 0.01 : 0.3);
    if (c.part == ResidualPart::convex) {
      CHECK(sum.lipschitz == doctest::Approx(0.75 + 0.25 * inner.lipschitz));
      CHECK(sum.rms == doctest::Approx(0.75 + 0.25 * inner.rms));
      CHECK(sum.out.radius == doctest::Approx(0.75 * 1.5 + 0.25 * inner.out.radius));
    }
    if (c.part == ResidualPart::admin) CHECK(sum.lipschitz == doctest::Approx(max_abs(branch.omega) + inner.lipschitz));
    if (c.part == ResidualPart::deepnorm) CHECK(sum.lipschitz == doctest::Approx(1.7 + inner.lipschitz));
    if (c.part == ResidualPart::rezero) CHECK(sum.lipschitz == doctest::Approx(1 + max_abs(branch.alpha) * inner.lipschitz));
  }
}

TEST_CASE("bounds: an MLP of every activation; the scaled GELU never stretches") {
  for (const Activation activation : {Activation::gelu, Activation::gelu_scaled, Activation::relu}) {
    CAPTURE(int(activation));
    Bench bench;
    const Mlp mlp(bench.root / "mlp", 3, 3, activation);
    BoundTrace& trace = bench.draw();
    const auto f = [&](const Tensor& x) { return mlp(x); };
    Found found = ascend({1, 2, 3}, 3, f);
    found.take(search({1, 2, 3}, 3, f));
    check_bound(mlp.bound({2, 3, 3}, trace), found, 0.3, 0.3);
    // Identities around the activation: its slope is all there is, and all inputs of a token reach it at once.
    for (const Linear* l : {&mlp.fc1, &mlp.fc2}) {
      bench.set(l->weight.raw, {1, 0, 0, 0, 1, 0, 0, 0, 1});
      bench.set(l->bias, {0, 0, 0});
    }
    const Bound bound = mlp.bound({2, 3, 3}, bench.measure());
    const std::vector<double> x(6, std::sqrt(2.0)), y(6, std::sqrt(2.0) + 1e-5);
    const Found steepest = stretch_between({1, 2, 3}, x, y, f);
    CHECK(steepest.stretch <= bound.lipschitz);
    CHECK(steepest.stretch >= 0.999 * bound.lipschitz);
    if (activation == Activation::gelu_scaled) CHECK(bound.lipschitz <= 1);
  }
}

TEST_CASE("bounds: overlapping convolution") {
  struct Case {
    int kernel, stride, padding;
    NormKind norm;
  };
  for (const Case& c : {Case{3, 2, 1, NormKind::none}, Case{7, 4, 2, NormKind::none}, Case{2, 2, 0, NormKind::none}, Case{3, 2, 1, NormKind::layer}}) {
    CAPTURE(c.kernel);
    Bench bench;
    const OverlapConv conv(bench.root / "conv", bench.root / "norm", 2, 3, 6, c.kernel, c.stride, c.padding, NormPart{c.norm, 0.1});
    BoundTrace& trace = bench.draw(0.4);
    const auto f = [&](const Tensor& x) { return conv(x, Mode{}); };
    Found found = ascend({1, 6, 6, 2}, 1.5, f, 4, 30);
    found.take(search({1, 6, 6, 2}, 1.5, f, 100));
    const Bound bound = conv.bound({36, 2, 1.5}, trace);
    const bool linear = c.norm == NormKind::none;
    check_bound(bound, found, linear ? 0.3 : 0.02, linear ? 0.3 : 0.02);
    // Certified, it is the operator itself, and an ascent on a linear map reaches that.
    Workers workers(1);
    CertifiedNorms certified(bench.store);
    certified.measure(workers, *bench.norms, 1e-6);
    BoundTrace proofs{certified, {}};
    const Bound proved = conv.bound({36, 2, 1.5}, proofs);
    CHECK(proved.kind == BoundKind::certified);
    CHECK(proved.lipschitz <= bound.lipschitz * rounding);
    CHECK(found.stretch <= proved.lipschitz * (1 + 1e-9));
    if (linear) CHECK(found.stretch >= 0.99 * proved.lipschitz);
    CHECK(bound.out.tokens == conv.side() * conv.side());
    CHECK(f(Tensor::zeros({1, 6, 6, 2}, DType::f64)).shape() == Shape{1, conv.side(), conv.side(), 3});
  }
}

// One pixel that all overlapping patches see, and a patch whose pixels all push the same way: neither factor is loose.
TEST_CASE("bounds: an overlapping convolution can reach both of its factors") {
  Bench bench;
  const OverlapConv conv(bench.root / "conv", bench.root / "norm", 1, 9, 6, 3, 2, 1, NormPart{NormKind::none});
  bench.draw(0);
  std::vector<double> identity(81, 0.0);   // patches as they are
  for (int i = 0; i < 9; i++) identity[size_t(10 * i)] = 1;
  bench.set(conv.weight.raw, identity);
  const Bound bound = conv.bound({36, 1, 1}, bench.measure());
  const auto f = [&](const Tensor& x) { return conv(x, Mode{}); };
  std::vector<double> zero(36, 0.0), corner(36, 0.0), all(36, 1.0);
  corner[6 * 1 + 1] = 1;
  const Found shared = stretch_between({1, 6, 6, 1}, zero, corner, f), together = stretch_between({1, 6, 6, 1}, zero, all, f);
  CHECK(shared.stretch == doctest::Approx(2));
  CHECK(bound.lipschitz == doctest::Approx(2));
  CHECK(together.rms == doctest::Approx(bound.rms));
}

TEST_CASE("bounds: depthwise convolution in the rms norm") {
  Bench bench;
  const DepthwiseConv conv(bench.root / "conv", 2, 3, 5, 5);
  bench.draw(0);
  bench.set(conv.weight.raw, std::vector<double>(18, 0.5));
  bench.set(conv.bias, {2000, 2000});   // where GELU is the identity
  const Bound bound = conv.with_gelu_bound({25, 2, 100}, bench.measure());
  const auto f = [&](const Tensor& x) { return conv.with_gelu(x); };
  const Found found = stretch_between({1, 5, 5, 2}, std::vector<double>(50, 0.0), std::vector<double>(50, 1.0), f);
  CHECK(found.rms == doctest::Approx(4.5));
  CHECK(found.rms <= bound.rms);
  CHECK(bound.rms == doctest::Approx(4.5 * gelu_lipschitz));
}

TEST_CASE("bounds: patches and merging in the rms norm") {
  Bench bench;
  const PatchMerging merging(bench.root / "merging", 2, NormPart{NormKind::none}, false);
  bench.draw(0);
  std::vector<double> picks(32, 0.0);   // [4, 8]: the first four numbers as they are
  for (int i = 0; i < 4; i++) picks[size_t(9 * i)] = 1;
  bench.set(merging.reduction.weight.raw, picks);
  const Bound bound = merging.bound({4, 2, 1}, bench.measure());
  const Found found = ascend({1, 2, 2, 2}, 1, [&](const Tensor& x) { return merging(x, Mode{}); }, 2, 10);
  check_bound(bound, found, 0.99, 0.7);
}

TEST_CASE("bounds: weight parts") {
  for (const WeightPart::Kind kind : {WeightPart::sigma_reparam, WeightPart::spectral_norm, WeightPart::weight_norm}) {
    CAPTURE(int(kind));
    Bench bench({.init = {InitRule::spectral}, .weight = {kind}});
    const Linear fc(bench.root / "fc", 4, 5), thin = Linear::pointwise(bench.root / "thin", 3);
    const Linear halved(bench.root / "halved", 4, 5, true, bench.root.init().matrix(), 0.5);
    const Mlp mlp(bench.root / "mlp", 3, 4, Activation::gelu_scaled);
    const DepthwiseConv conv(bench.root / "conv", 2, 3, 3, 4);
    const PatchEmbed embed(bench.root / "embed", 1, 5, 2, NormPart{NormKind::none});
    const OverlapConv overlap(bench.root / "overlap", bench.root / "norm", 2, 3, 4, 3, 2, 1, NormPart{NormKind::none});
    BoundTrace& trace = bench.draw(0.9);
    const double tight = kind == WeightPart::weight_norm ? 0.5 : 0.95;   // rows of given length: their root sum of squares is an upper limit
    const auto check_layer = [&](const char* what, const Bound& bound, const Shape& shape, const Map& f, double part) {
      CAPTURE(what);
      Found found = ascend(shape, 1.5, f, 3, 20);
      found.take(search(shape, 1.5, f, 60));
      check_bound(bound, found, part, part * 0.9);
    };
    check_layer("fc", fc.bound({2, 4, 1.5}, trace), {1, 2, 4}, [&](const Tensor& x) { return fc(x); }, tight);
    check_layer("halved", halved.bound({2, 4, 1.5}, trace), {1, 2, 4}, [&](const Tensor& x) { return halved(x); }, tight);
    check_layer("thin", thin.bound({2, 3, 1.5}, trace), {1, 2, 3}, [&](const Tensor& x) { return thin(x); }, tight);
    check_layer("mlp", mlp.bound({2, 3, 1.5}, trace), {1, 2, 3}, [&](const Tensor& x) { return mlp(x); }, tight * 0.2);
    check_layer("conv", conv.with_gelu_bound({12, 2, 1.5}, trace), {1, 3, 4, 2}, [&](const Tensor& x) { return conv.with_gelu(x); }, tight * 0.2);
    check_layer("embed", embed.bound({3, 4, 1.5}, trace), {1, 3, 4}, [&](const Tensor& x) { return embed(x, Mode{}); }, tight);
    check_layer("overlap", overlap.bound({16, 2, 1.5}, trace), {1, 4, 4, 2}, [&](const Tensor& x) { return overlap(x, Mode{}); }, tight * 0.3);
    if (kind == WeightPart::sigma_reparam) {
      const double gamma = std::abs(fc.weight.gain.raw().item());
      CHECK(fc.bound({2, 4, 1.5}, trace).lipschitz == doctest::Approx(gamma).epsilon(1e-5));
    }
    if (kind == WeightPart::spectral_norm) CHECK(halved.bound({2, 4, 1.5}, trace).lipschitz == doctest::Approx(0.5).epsilon(1e-5));
    CHECK(fc.bound({2, 4, 1.5}, trace).kind == (kind == WeightPart::weight_norm ? BoundKind::certified : BoundKind::estimate));
  }
}
