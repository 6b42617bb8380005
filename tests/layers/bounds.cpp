// bounds: no pair of inputs that a search finds is stretched farther than its layer's bound says, and no token leaves its ball.
#include <doctest/doctest.h>

#include "layers/attention.h"
#include "layers/depthwise_conv.h"
#include "layers/mlp.h"
#include "layers/patch_embed.h"
#include "layers/residual.h"
#include "matrices.h"

namespace {

constexpr double rounding = 1 + 1e-5;   // power iteration keeps its vectors in f32

// A store with layers in it, all parameters filled with numbers of the size given (nothing at 0 or 1, where mistakes hide).
struct Bench {
  ParameterStore store;
  Scope root{store, {InitRule::spectral}};
  std::unique_ptr<SpectralNorms> norms;
  std::unique_ptr<BoundTrace> trace;

  BoundTrace& draw(double size = 0.7) {
    store.finalize(DType::f64, 0, 1);
    for (size_t i = 0; i < store.parameters().size(); i++) {
      const Tensor to = store.raw(int(i));
      std::vector<double> values(to.size());
      for (int64_t j = 0; j < to.size(); j++) values[j] = size * normal_number(store.parameters()[i].name.c_str(), j);
      fill(to, values);
    }
    return measure();
  }
  BoundTrace& measure() {
    Workers workers(1);
    norms = std::make_unique<SpectralNorms>(store);
    norms->iterate(workers, 500);
    trace = std::make_unique<BoundTrace>(BoundTrace{*norms, {}});
    return *trace;
  }
};

double length(const std::vector<double>& x) {
  double squares = 0;
  for (const double v : x) squares += v * v;
  return std::sqrt(squares);
}

double longest_token(const std::vector<double>& x, int64_t width) {
  double longest = 0;
  for (size_t t = 0; t < x.size(); t += width) longest = std::max(longest, length({x.begin() + t, x.begin() + t + width}));
  return longest;
}

struct Found {
  double stretch = 0;   // largest |f(x) - f(y)| / |x - y|
  double reach = 0;     // longest token that came out
};

// A random search with memory: every second pair is a small change of the best one so far. Tokens stay within `radius`.
template <class F> Found search(const Shape& shape, double radius, F&& f, int tries = 600) {
  const int64_t n = shape.size(), width = shape[-1];
  Found found;
  std::vector<double> best_x, best_d;
  int64_t drawn = 0;
  const auto random = [&](double size) {
    std::vector<double> v(n);
    for (double& x : v) x = size * normal_number("search", drawn++);
    return v;
  };
  const auto clip = [&](std::vector<double>& x) {
    for (int64_t t = 0; t < n; t += width) {
      const double l = length({x.begin() + t, x.begin() + t + width});
      if (l > radius) for (int64_t i = t; i < t + width; i++) x[i] *= radius / l;
    }
  };
  const auto run = [&](const std::vector<double>& x) { return f(Tensor::from(shape, x, DType::f64)).values(); };
  for (int k = 0; k < tries; k++) {
    // Inputs of all sizes, from nearly nothing to the rim of the ball, because some layers are worst at zero.
    const double size = radius * std::pow(10.0, -double(k % 7)) * 2 / std::sqrt(double(width));
    std::vector<double> x = random(size), d = random(1);
    if (k % 2 && !best_x.empty()) {
      const double change = std::pow(10.0, -double(k % 5) / 2);
      for (int64_t i = 0; i < n; i++) {
        x[i] = best_x[i] * (1 + 0.3 * change * x[i] / size);
        d[i] = best_d[i] + change * length(best_d) / std::sqrt(double(n)) * d[i];
      }
    }
    clip(x);
    std::vector<double> y(n);
    // Long steps and short ones, but none so short that rounding in f(x) would look like a stretch.
    const double step = (k % 3 ? 1e-5 * radius : 0.5 * std::max(length(x), 1e-6 * radius)) / length(d);
    for (int64_t i = 0; i < n; i++) y[i] = x[i] + step * d[i];
    clip(y);
    std::vector<double> apart(n), fx = run(x), fy = run(y);
    for (int64_t i = 0; i < n; i++) apart[i] = y[i] - x[i];
    std::vector<double> moved(fx.size());
    for (size_t i = 0; i < fx.size(); i++) moved[i] = fy[i] - fx[i];
    found.reach = std::max(found.reach, longest_token(fx, f(Tensor::from(shape, x, DType::f64)).shape()[-1]));
    if (length(apart) < 1e-7 * radius) continue;
    const double stretch = length(moved) / length(apart);
    if (stretch > found.stretch) found.stretch = stretch, best_x = x, best_d = d;
  }
  return found;
}

// The bound holds, and it is not so loose that it would hold for anything: at least `tight` of it is reached.
void check_bound(const Bound& bound, const Found& found, double tight) {
  CAPTURE(found.stretch);
  CAPTURE(bound.lipschitz);
  CAPTURE(found.reach);
  CAPTURE(bound.out.radius);
  CHECK(std::isfinite(bound.lipschitz));
  CHECK(found.stretch <= bound.lipschitz * rounding);
  CHECK(found.stretch >= bound.lipschitz * tight);
  CHECK(found.reach <= bound.out.radius * rounding);
}

}  // namespace

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
  const Tensor weight = conv.weight.raw(), bias = conv.bias.raw();
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
    const Norm norm(bench.root / "norm", d, NormPart::center, 0);
    bench.store.finalize(DType::f64, 0, 0);
    const Bound bound = norm.bound({1, d, 1}, bench.measure());
    CHECK(bound.lipschitz == doctest::Approx(double(d) / double(d - 1)).epsilon(1e-12));
    CHECK(bound.kind == BoundKind::certified);
    std::vector<double> difference(d, 0.0), zero(d, 0.0);   // reached by every direction without a mean
    difference[0] = 1, difference[1] = -1;
    const auto f = [&](const std::vector<double>& x) { return norm(Tensor::from(Shape{1, 1, d}, x, DType::f64)).values(); };
    CHECK(length(f(difference)) / std::sqrt(2.0) == doctest::Approx(bound.lipschitz).epsilon(1e-12));
    CHECK(length(f(std::vector<double>(d, 5.0))) < 1e-12);
  }
  Bench bench;
  const Norm norm(bench.root / "norm", 4, NormPart::center, 0);
  bench.store.finalize(DType::f64, 0, 0);
  const std::vector<double> y = norm(Tensor::from(Shape{1, 1, 4}, std::vector<double>{1, 2, 3, 4}, DType::f64)).values();
  for (int i = 0; i < 4; i++) CHECK(y[i] == doctest::Approx(std::vector{-2.0, -2.0 / 3, 2.0 / 3, 2.0}[i]).epsilon(1e-12));
  BoundTrace& trace = bench.draw();
  check_bound(norm.bound({2, 4, 3}, trace), search({1, 2, 4}, 3, [&](const Tensor& x) { return norm(x); }), 0.7);
}

TEST_CASE("bounds: layer norm is steepest where a token is flat, and resets the domain") {
  Bench bench;
  const Norm norm(bench.root / "norm", 6, NormPart::layer, 1e-2), sharp(bench.root / "sharp", 6, NormPart::layer, 0);
  BoundTrace& trace = bench.draw();
  const auto f = [&](const Tensor& x) { return norm(x); };
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
  for (const NormPart part : {NormPart::center, NormPart::layer, NormPart::none}) {
    Bench bench;
    const PatchEmbed embed(bench.root / "embed", 1, 5, 2, part, 0.1);
    const PatchMerging merging(bench.root / "merging", 3, part, 0.1);
    BoundTrace& trace = bench.draw();
    check_bound(embed.bound({6, 4, 2}, trace), search({1, 6, 4}, 2, [&](const Tensor& x) { return embed(x); }), 0.1);
    check_bound(merging.bound({16, 3, 2}, trace), search({1, 4, 4, 3}, 2, [&](const Tensor& x) { return merging(x); }), 0.05);
  }
}

TEST_CASE("bounds: attention") {
  const AttentionPart dot{Similarity::dot}, cosine{Similarity::cosine}, bounded{Similarity::cosine_bounded, 3, 1.5, 0.02};
  for (const int shift : {0, 1}) {
    CAPTURE(shift);
    Bench bench;
    const Attention by_dot(bench.root / "dot", 4, 2, 2, shift, dot), by_cosine(bench.root / "cosine", 4, 2, 2, shift, cosine),
        by_bounded(bench.root / "bounded", 4, 2, 2, shift, bounded);
    BoundTrace& trace = bench.draw(0.6);
    const Domain in{16, 4, 1.2};
    const auto search_in = [&](const Attention& attention, double radius) {
      return search({1, 4, 4, 4}, radius, [&](const Tensor& x) { return attention(x, Mode{}); });
    };
    check_bound(by_dot.bound(in, trace), search_in(by_dot, 1.2), 0.001);
    check_bound(by_bounded.bound(in, trace), search_in(by_bounded, 1.2), 0.001);
    const Bound everywhere = by_bounded.bound({16, 4}, trace);   // whatever comes in
    CHECK(everywhere.lipschitz == doctest::Approx(by_bounded.bound(in, trace).lipschitz));
    CHECK(search_in(by_bounded, 1e4).reach <= everywhere.out.radius);

    CHECK(search_in(by_cosine, 1.2).reach <= by_cosine.bound(in, trace).out.radius);
    CHECK(by_cosine.bound(in, trace).kind == BoundKind::unbounded);
    CHECK(by_cosine.bound(in, trace).blame == "cosine");
    CHECK(by_dot.bound({16, 4}, trace).kind == BoundKind::unbounded);
    CHECK(by_dot.bound({16, 4}, trace).blame == "dot");
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
