// bounds: no pair of inputs that a search finds is stretched farther than its layer's bound says, and no token leaves its ball.
#include <doctest/doctest.h>

#include "bound_search.h"
#include "layers/depthwise_conv.h"
#include "layers/mlp.h"
#include "layers/patch_embed.h"
#include "layers/residual.h"

TEST_CASE("bounds: the GELU constant is its largest slope, rounded up") {
  double steepest = 0;
  for (double x = 1.40; x < 1.43; x += 1e-6)
    steepest = std::max(steepest, 0.5 * std::erfc(-x / std::sqrt(2.0)) + x * std::exp(-x * x / 2) / std::sqrt(2 * M_PI));
  CHECK(gelu_lipschitz >= steepest);
  CHECK(gelu_lipschitz < steepest + 1e-5);
}

TEST_CASE("bounds: linear, with and without GELU, and pointwise") {
  Bench bench;
  const Linear fc(bench.root / "fc", 5, 4), thin = Linear::pointwise(bench.root / "thin", 3);
  BoundTrace& trace = bench.draw();
  const Domain in{3, 5, 2.0};
  check_bound(fc.bound(in, trace), search({1, 3, 5}, 2, [&](const Tensor& x) { return fc(x); }), 0.9);
  check_bound(fc.with_gelu_bound(in, trace), search({1, 3, 5}, 2, [&](const Tensor& x) { return fc.with_gelu(x); }), 0.3);
  check_bound(thin.with_gelu_bound({3, 3, 2.0}, trace), search({1, 3, 3}, 2, [&](const Tensor& x) { return thin.with_gelu(x); }), 0.3);
  CHECK(trace.layers.size() == 3);
  CHECK(trace.layers[0].name == "fc");
}

TEST_CASE("bounds: depthwise convolution") {
  Bench bench;
  const DepthwiseConv conv(bench.root / "conv", 2, 7, 3, 4);
  BoundTrace& trace = bench.draw(0.3);
  const auto f = [&](const Tensor& x) { return conv.with_gelu(x); };
  check_bound(conv.with_gelu_bound({12, 2, 1.5}, trace), search({1, 3, 4, 2}, 1.5, f), 0.3);
  // Two channels that look at two different places: the token that sees both is longer than either.
  const Tensor weight = conv.weight.raw.raw(), bias = conv.bias.raw();
  std::vector<double> apart(2 * 49, 0.0);
  apart[3 * 7 + 2] = apart[49 + 3 * 7 + 4] = 1;
  fill(weight, apart);
  fill(bias, {0, 0});
  std::vector<double> map(3 * 4 * 2, 0.0);
  map[0] = 9, map[2 * 2 + 1] = 9;   // (0, 0) is (9, 0) and (0, 2) is (0, 9)
  const std::vector<double> out = f(Tensor::from(Shape{1, 3, 4, 2}, map, DType::f64)).values();
  CHECK(longest_token(out, 2) == doctest::Approx(9 * std::sqrt(2.0)));
  CHECK(longest_token(out, 2) <= conv.with_gelu_bound({12, 2, 9}, bench.measure()).out.radius);
}

TEST_CASE("bounds: center norm has the constant D / (D - 1)") {
  for (const int64_t d : {2, 96, 768}) {
    Bench bench;
    const Norm norm(bench.root / "norm", d, NormPart{NormKind::center, 0});
    bench.store.finalize(DType::f64, 0, 0);
    const Bound bound = norm.bound({1, d, 1}, bench.measure());
    CHECK(bound.lipschitz == doctest::Approx(double(d) / double(d - 1)).epsilon(1e-12));
    CHECK(bound.kind == BoundKind::certified);
    std::vector<double> difference(d, 0.0), zero(d, 0.0);   // reached by every direction without a mean
    difference[0] = 1, difference[1] = -1;
    const auto f = [&](const std::vector<double>& x) { return norm(Tensor::from(Shape{1, 1, d}, x, DType::f64), Mode{}).values(); };
    CHECK(length(f(difference)) / std::sqrt(2.0) == doctest::Approx(bound.lipschitz).epsilon(1e-12));
    CHECK(length(f(std::vector<double>(d, 5.0))) < 1e-12);
  }
  Bench bench;
  const Norm norm(bench.root / "norm", 4, NormPart{NormKind::center, 0});
  bench.store.finalize(DType::f64, 0, 0);
  const std::vector<double> y = norm(Tensor::from(Shape{1, 1, 4}, std::vector<double>{1, 2, 3, 4}, DType::f64), Mode{}).values();
  for (int i = 0; i < 4; i++) CHECK(y[i] == doctest::Approx(std::vector{-2.0, -2.0 / 3, 2.0 / 3, 2.0}[i]).epsilon(1e-12));
  BoundTrace& trace = bench.draw();
  check_bound(norm.bound({2, 4, 3}, trace), search({1, 2, 4}, 3, [&](const Tensor& x) { return norm(x, Mode{}); }), 0.7);
}

TEST_CASE("bounds: layer norm is steepest where a token is flat, and resets the domain") {
  Bench bench;
  const Norm norm(bench.root / "norm", 6, NormPart{NormKind::layer, 1e-2}), sharp(bench.root / "sharp", 6, NormPart{NormKind::layer, 0});
  BoundTrace& trace = bench.draw();
  const auto f = [&](const Tensor& x) { return norm(x, Mode{}); };
  check_bound(norm.bound({2, 6, 50}, trace), search({1, 2, 6}, 50, f), 0.7);
  const Bound anywhere = norm.bound({2, 6}, trace);
  CHECK(std::isfinite(anywhere.out.radius));
  CHECK(search({1, 2, 6}, 1e6, f).reach >= 0.5 * anywhere.out.radius);
  const Bound none = sharp.bound({2, 6, 1}, trace);   // without epsilon there is no constant
  CHECK(none.kind == BoundKind::unbounded);
  CHECK(none.blame == "sharp");
}

TEST_CASE("bounds: mlp and weighted residual") {
  Bench bench;
  const Mlp mlp(bench.root / "mlp", 4, 7);
  const ResidualBranch plain(bench.root / "plain", 4, ResidualPart::plain, 0, 0.2), weighted(bench.root / "weighted", 4, ResidualPart::weighted, 0.5, 0.2);
  BoundTrace& trace = bench.draw(0.5);
  const Domain in{2, 4, 1.5};
  const Bound inner = mlp.bound(in, trace);
  check_bound(inner, search({1, 2, 4}, 1.5, [&](const Tensor& x) { return mlp(x); }), 0.1);
  for (const ResidualBranch* branch : {&plain, &weighted})
    check_bound(branch->bound(in, inner, trace), search({1, 2, 4}, 1.5, [&](const Tensor& x) { return (*branch)(x, mlp(x), Mode{}); }), 0.2);
  CHECK(weighted.bound(in, inner, trace).lipschitz == doctest::Approx(1 + max_abs(weighted.alpha) * inner.lipschitz));
}

TEST_CASE("bounds: patch embedding and merging") {
  for (const NormKind kind : {NormKind::center, NormKind::layer, NormKind::none}) {
    Bench bench;
    const PatchEmbed embed(bench.root / "embed", 1, 5, 2, NormPart{kind, 0.1});
    const PatchMerging merging(bench.root / "merging", 3, NormPart{kind, 0.1}, false);
    BoundTrace& trace = bench.draw();
    check_bound(embed.bound({6, 4, 2}, trace), search({1, 6, 4}, 2, [&](const Tensor& x) { return embed(x, Mode{}); }), 0.1);
    check_bound(merging.bound({16, 3, 2}, trace), search({1, 4, 4, 3}, 2, [&](const Tensor& x) { return merging(x, Mode{}); }), 0.05);
  }
}

TEST_CASE("bounds: composition keeps the weaker kind and the first culprit") {
  const Domain d{1, 1, 1};
  const Bound two = Bound::of(2, BoundKind::certified, d), three = Bound::of(3, BoundKind::estimate, d);
  const Bound first = Bound::without_bound("first", d), second = Bound::without_bound("second", d);
  CHECK(then(two, three).lipschitz == 6);
  CHECK(then(two, three).kind == BoundKind::estimate);
  CHECK(then(three, two).kind == BoundKind::estimate);
  CHECK(then(two, two).kind == BoundKind::certified);
  CHECK(then(then(two, first), second).blame == "first");
  CHECK(std::isinf(then(first, Bound::of(0, BoundKind::certified, d)).lipschitz));
  CHECK(residual_bound(d, three, 0.5).lipschitz == 2.5);
  CHECK(residual_bound(d, three, 0.5).out.radius == 1.5);
  CHECK(residual_bound(d, first, 0.5).blame == "first");
  CHECK(residual_bound(d, first, 0).lipschitz == 1);   // switched off
}
