// bounds_attention: every form of attention under search and ascent, and each term of dot attention where it is the whole of the truth.
#include "bound_search.h"
#include "layers/attention.h"

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

Map forward(const Attention& attention) {
  return [&attention](const Tensor& x) { return attention(x, Mode{}); };
}

// The map of an attention alone: its projection is the identity and takes nothing away.
std::vector<double> identity(int64_t n, double size = 1) {
  std::vector<double> m(size_t(n * n), 0.0);
  for (int64_t i = 0; i < n; i++) m[size_t(i * n + i)] = size;
  return m;
}

AttentionPlace sequence(int tokens, int heads = 1) { return {.heads = heads, .window_height = 1, .window_width = tokens}; }

// One head of width 2 over a sequence, every matrix and bias zero, the projection the identity.
struct PlainHead {
  Bench bench;
  Attention attention;
  PlainHead(const AttentionPart& part, AttentionPlace place) {
    place.position_bias = true;
    AttentionPart separate = part;
    separate.separate = true;
    attention = Attention(bench.root / "a", 2, separate, place);
    bench.draw(0);
    bench.set(attention.proj.weight.raw, identity(2));
  }
  // Each query attends to the first token it sees, whatever the logits are.
  void attend_to_first() {
    const int64_t n = attention.tokens();
    std::vector<double> table;
    for (int64_t d = -(n - 1); d < n; d++) table.push_back(40.0 * double(d));   // row d: the query stands d behind the key
    bench.set(attention.bias_table, table);
  }
  Bound bound(double radius) { return attention.bound({attention.tokens(), 2, radius}, bench.measure()); }
  Found between(const std::vector<double>& x, const std::vector<double>& direction, double step = 1e-6) {
    std::vector<double> y = x;
    for (size_t i = 0; i < x.size(); i++) y[i] += step * direction[i];
    return stretch_between({1, 1, attention.tokens(), 2}, x, y, forward(attention));
  }
};

}  // namespace

TEST_CASE("bounds: attention in windows, shifted or not") {
  const AttentionPart dot{Similarity::dot}, cosine{Similarity::cosine}, bounded{Similarity::cosine_bounded, 3, 1.5, 0.02};
  for (const int shift : {0, 1}) {
    CAPTURE(shift);
    Bench bench;
    const AttentionPlace place{.heads = 2, .window_height = 2, .window_width = 2, .shift = shift, .position_bias = true};
    const Attention by_dot(bench.root / "dot", 4, dot, place), by_cosine(bench.root / "cosine", 4, cosine, place),
        by_bounded(bench.root / "bounded", 4, bounded, place);
    BoundTrace& trace = bench.draw(0.6);
    const Domain in{16, 4, 1.2};
    const auto search_in = [&](const Attention& attention, double radius) { return search({1, 4, 4, 4}, radius, forward(attention)); };
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

// The value term alone: queries and keys are zero and all attend to one token, so what it has stands N times in the result.
TEST_CASE("bounds: dot attention, the value term is reached") {
  for (const Similarity similarity : {Similarity::dot, Similarity::cosine_bounded}) {
    CAPTURE(int(similarity));
    PlainHead head({similarity, 10, 1.5, 0.04}, sequence(5));
    head.attend_to_first();
    head.bench.set(head.attention.v_proj.weight.raw, {0.9, 0, 0, 0.9});
    const Bound bound = head.bound(1);
    std::vector<double> x(10, 0.0), d(10, 0.0);
    d[0] = 1;
    const Found found = head.between(x, d, 1e-7);
    CHECK(found.stretch == doctest::Approx(bound.lipschitz).epsilon(1e-4));
    CHECK(found.stretch <= bound.lipschitz * rounding);
    CHECK(found.rms == doctest::Approx(bound.rms).epsilon(1e-4));
    CHECK(found.rms <= bound.rms * rounding);
  }
}

// Two tokens at opposite ends of the value's axis, both attended by half; a key's move turns the weights over. Keys and values read
// different channels, and the queries' length is all bias.
TEST_CASE("bounds: dot attention, the key's part of the score term is nearly reached") {
  PlainHead head({Similarity::dot}, sequence(2));
  head.bench.set(head.attention.v_proj.weight.raw, {1, 0, 0, 0});
  head.bench.set(head.attention.k_proj.weight.raw, {0, 1, 0, 0});
  head.bench.set(head.attention.q_proj.bias, {20, 0});
  const Bound bound = head.bound(1);
  const Found found = head.between({1, 0, -1, 0}, {0, 1, 0, -1});
  CHECK(found.rms <= bound.rms * rounding);
  CHECK(found.rms >= 0.9 * bound.rms);
  CHECK(found.stretch <= bound.lipschitz * rounding);
  CHECK(found.stretch >= 0.6 * bound.lipschitz);
}

// The first of three tokens asks, the other two stand at opposite ends across its query, and nobody sees itself: queries and keys add up.
TEST_CASE("bounds: dot attention, both parts of the score term at once") {
  PlainHead head({Similarity::dot}, sequence(3));
  for (const Linear* l : {&head.attention.q_proj, &head.attention.k_proj}) head.bench.set(l->weight.raw, identity(2, 5));
  head.bench.set(head.attention.v_proj.weight.raw, identity(2));
  head.bench.set(head.attention.bias_table, {0, 0, -60, 0, 0});
  const Bound bound = head.bound(1);
  const std::vector<double> x{1, 0, 0, 1, 0, -1};
  const Found both = head.between(x, {0, 1, 1, 0, -1, 0});
  CHECK(both.rms <= bound.rms * rounding);
  CHECK(both.rms >= 0.95 * bound.rms);
  CHECK(both.stretch <= bound.lipschitz * rounding);
  CHECK(both.stretch >= 0.35 * bound.lipschitz);
  const Found query = head.between(x, {0, 1, 0, 0, 0, 0});
  CHECK(query.rms >= 0.45 * bound.rms);
}

// Queries at zero are turned by a breath, keys are long: tau |Wq| / sqrt(eps) is all there is.
TEST_CASE("bounds: bounded cosine attention, the parts of the score term are nearly reached") {
  PlainHead head({Similarity::cosine_bounded, 10, 1.5, 1e-4}, sequence(3));
  head.bench.set(head.attention.bias_table, {0, 0, -60, 0, 0});
  const Attention& a = head.attention;
  SUBCASE("queries") {
    head.bench.set(a.q_proj.weight.raw, identity(2));
    head.bench.set(a.k_proj.weight.raw, identity(2, 0.02));
    head.bench.set(a.v_proj.weight.raw, identity(2, 0.02));
    const Bound bound = head.bound(100);
    const Found found = head.between({0, 0, 0, 100, 0, -100}, {0, 1, 0, 0, 0, 0});
    CHECK(found.rms <= bound.rms * rounding);
    CHECK(found.rms >= 0.9 * bound.rms);
    CHECK(found.stretch <= bound.lipschitz * rounding);
    CHECK(found.stretch >= 0.5 * bound.lipschitz);
  }
  SUBCASE("keys") {
    head.bench.set(a.q_proj.bias, {100, 0});
    head.bench.set(a.k_proj.weight.raw, {0, 1, 0, 0});
    head.bench.set(a.v_proj.weight.raw, {0.02, 0, 0, 0});
    const Bound bound = head.bound(100);
    const Found found = head.between({0, 0, 100, 0, -100, 0}, {0, 0, 0, 1, 0, -1});
    CHECK(found.rms <= bound.rms * rounding);
    CHECK(found.rms >= 0.9 * bound.rms);
    CHECK(found.stretch <= bound.lipschitz * rounding);
    CHECK(found.stretch >= 0.4 * bound.lipschitz);
  }
}

// Two long tokens that rotary positions turn onto each other: as queries they are neighbours, as values far apart, so a breath moves the result
// far. The constant of plain distances knows nothing of lengths and does not hold here.
TEST_CASE("bounds: distances between turned tokens need a ball") {
  AttentionPlace turned = sequence(2), still = turned;
  turned.rotary_base = 100;
  PlainHead head({Similarity::l2}, turned), plain({Similarity::l2}, still);
  for (PlainHead* h : {&head, &plain})
    for (const Linear* l : {&h->attention.q_proj, &h->attention.v_proj}) h->bench.set(l->weight.raw, identity(2));
  const double radius = 50, apart = 49;
  Found found;
  for (const double sign : {1.0, -1.0}) {
    const double c = std::cos(1), s = sign * std::sin(1);
    found.take(head.between({radius, 0, apart * c, apart * s}, {0, 0, c, s}));
  }
  const Bound bound = head.bound(radius);
  CHECK(found.rms > 2 * plain.bound(radius).rms);
  CHECK(found.stretch > 2 * plain.bound(radius).lipschitz);
  CHECK(found.rms <= bound.rms);
  CHECK(found.stretch <= bound.lipschitz);
  CHECK(head.bound(infinity).kind == BoundKind::unbounded);
  CHECK(plain.bound(infinity).kind == BoundKind::estimate);
}

// LePE reads nine tokens at once: where all push the same way, attention gives the value once and the convolution its nine weights times.
TEST_CASE("bounds: LePE's term is reached in the rms norm") {
  Bench bench;
  const Attention attention(bench.root / "a", 2, {.separate = true}, {.window_height = 3, .window_width = 3, .lepe = true});
  bench.draw(0);
  bench.set(attention.v_proj.weight.raw, identity(2));
  bench.set(attention.proj.weight.raw, identity(2));
  bench.set(attention.lepe[0].weight.raw, std::vector<double>(18, 0.5));
  const Bound bound = attention.bound({9, 2, 3}, bench.measure());
  const Found found = stretch_between({1, 3, 3, 2}, std::vector<double>(18, 0.0), std::vector<double>(18, 1.0), forward(attention));
  CHECK(found.rms == doctest::Approx(5.5));
  CHECK(bound.rms == doctest::Approx(5.5));
  CHECK(found.stretch <= bound.lipschitz);
  CHECK(found.stretch >= 0.4 * bound.lipschitz);
}

// Four heads that each look at a token of their own collect what four tokens have: the gap of sqrt(heads) of the one-head lemma.
TEST_CASE("bounds: heads add up in the rms norm") {
  Bench bench;
  AttentionPlace place = sequence(4, 4);
  place.position_bias = true;
  const Attention attention(bench.root / "a", 8, {.separate = true, .groups = AttentionPart::heads}, place);
  bench.draw(0);
  bench.set(attention.v_proj.weight.raw, identity(8));
  bench.set(attention.proj.weight.raw, identity(8));
  std::vector<double> table(7 * 4, 0.0);
  for (int h = 0; h < 4; h++) table[size_t((3 - h) * 4 + h)] = 40;   // the first query, head h: token h
  bench.set(attention.bias_table, table);
  const Bound bound = attention.bound({4, 8, 3}, bench.measure());
  std::vector<double> zero(32, 0.0), x(32, 0.0);
  for (int t = 0; t < 4; t++) x[size_t(8 * t + 2 * t)] = 1;
  const Found found = stretch_between({1, 1, 4, 8}, zero, x, forward(attention));
  CHECK(found.rms == doctest::Approx(2).epsilon(1e-6));
  CHECK(bound.rms == doctest::Approx(2).epsilon(1e-6));
}

// Every matrix the identity, 12 heads, 13 tokens: the published formula says that such a block contracts.
TEST_CASE("bounds: the counter-example to the published constant of many heads") {
  constexpr int heads = 12, tokens = 13;
  for (const int d : {1, 2}) {
    const int width = heads * d;
    Bench bench;
    const Attention attention(bench.root / "a", width, {.by_width = true, .separate = true, .groups = AttentionPart::heads}, sequence(tokens, heads));
    bench.draw(0);
    for (const Linear* l : {&attention.q_proj, &attention.k_proj, &attention.v_proj, &attention.proj}) bench.set(l->weight.raw, identity(width));
    const double radius = std::sqrt(double(width));
    const Bound bound = attention.bound({tokens, width, radius}, bench.measure());
    std::vector<double> x(size_t(tokens * width), 1.0);
    for (int t = 1; t < tokens; t++)
      for (int c = 0; c < width; c++) x[size_t(t * width + c)] = c / d == t - 1 ? radius / std::sqrt(double(d)) : 0;
    const Map f = forward(attention);
    StretchSearch search(f, [](std::vector<double>&) {}, {.step = 1e-6, .power_steps = 20, .ascents = 0, .rms = true});
    const double gain = search.from(Tensor::from(Shape{1, 1, tokens, width}, x, DType::f64), 1)[0], published = (1 + 2) / 3.0;
    CHECK(gain >= 1.600);
    CHECK(gain > published);
    CHECK(gain <= bound.rms);
    const double reach = stretch_between({1, 1, tokens, width}, x, std::vector<double>(x.size(), 0.0), f).reach;
    CHECK(3 * reach / radius == doctest::Approx(2.48).epsilon(5e-3));   // before the third, where 1 is published
    CHECK(reach <= bound.out.radius);
  }
}

namespace {

struct Form {
  std::string name;
  AttentionPart part;
  AttentionPlace place;
  double tight, tight_rms;   // how much of the constants the ascent must reach
};

}  // namespace

TEST_CASE("bounds: every form of attention under ascent") {
  const AttentionPlace two = sequence(4, 2);
  AttentionPlace causal = two, rotary = two, striped = two, windowed = two;
  causal.causal = true;
  rotary.causal = true, rotary.rotary_base = 100;
  windowed.lepe = true;
  striped.window_width = 2, striped.cross_shaped = true, striped.lepe = true, striped.output_factor = 0.5;
  const std::vector<Form> forms{
      {"dot", {}, two, 0.005, 0.015},
      {"dot, separate", {.separate = true}, two, 0.005, 0.015},
      {"dot, warm", {.temperature = 2, .separate = true}, two, 0.005, 0.015},
      {"dot over d", {.by_width = true, .scale = 2, .separate = true}, two, 0.005, 0.015},
      {"dot over d, by heads", {.by_width = true, .separate = true, .groups = AttentionPart::heads}, two, 0.005, 0.015},
      {"dot, fused by heads", {.groups = AttentionPart::heads}, two, 0.005, 0.015},
      {"causal", {.separate = true}, causal, 0.005, 0.015},
      {"rotary", {.separate = true}, rotary, 0.005, 0.015},
      {"qk layer norm", {.qk_norm = NormKind::layer, .qk_norm_eps = 0.05}, two, 0.001, 0.001},
      {"qk rms norm", {.qk_norm = NormKind::rms, .qk_norm_eps = 0.05, .separate = true}, two, 0.001, 0.001},
      {"bounded cosine", {Similarity::cosine_bounded, 3, 1.5, 0.02}, two, 0.01, 0.01},
      {"bounded cosine, separate", {.similarity = Similarity::cosine_bounded, .tau = 3, .nu = 1.5, .eps = 0.02, .separate = true}, causal, 0.01, 0.01},
      {"l2", {Similarity::l2}, two, 0.01, 0.01},
      {"l2, causal", {.similarity = Similarity::l2, .temperature = 0.25}, causal, 0.01, 0.01},
      {"l2, rotary", {.similarity = Similarity::l2, .temperature = 0.25}, rotary, 0, 0},
      {"LePE", {}, windowed, 0.005, 0.01},
      {"LePE in stripes", {}, striped, 0.01, 0.01},
  };
  for (const Form& form : forms) {
    CAPTURE(form.name);
    Bench bench;
    const Attention attention(bench.root / "a", 4, form.part, form.place);
    BoundTrace& trace = bench.draw(0.6);
    const bool stripes = form.place.cross_shaped;
    const Shape shape = stripes ? Shape{1, 2, 2, 4} : Shape{1, 1, 4, 4};
    const double radius = 1.5;
    const Bound bound = attention.bound({4, 4, radius}, trace);
    Found found = ascend(shape, radius, forward(attention), 4, 40);
    found.take(search(shape, radius, forward(attention), 100));
    check_bound(bound, found, form.tight, form.tight_rms);
    CHECK(bound.kind == BoundKind::estimate);
    const double bare = attention.bound({4, 4, infinity}, trace).lipschitz;   // dot products have no constant without a ball, nor turned distances
    const bool needs_ball = form.part.similarity == Similarity::dot || (form.part.similarity == Similarity::l2 && form.place.rotary_base > 0);
    CHECK(std::isfinite(bare) == !needs_ball);
  }
}

// 2.6 of the reference at N = 49, tau = 10, nu = 1, epsilon 1e-6 and unit norms; ours is never above the theorem.
TEST_CASE("bounds: LipsFormer's theorem for cosine attention beside the tighter constant") {
  const AttentionHead unit{49, 1, 1, 1, 0, 0, 0, 1};
  CHECK(cosine_theorem(unit, 10, 1, 1e-6) == doctest::Approx(4.81e7).epsilon(2e-3));
  CHECK(cosine_theorem_refined(unit, 10, 1, 1e-6) == doctest::Approx(2.46e7).epsilon(2e-3));
  CHECK(cosine_bounded_head(unit, 10, 1, 1e-6).l2 == doctest::Approx(4.97e5).epsilon(2e-3));
  Bench bench;
  const Attention attention(bench.root / "a", 8, {Similarity::cosine_bounded, 3, 1.5, 0.02}, sequence(5, 2));
  BoundTrace& trace = bench.draw();
  const Attention::CosineConstants c = attention.cosine_constants(*bench.norms);
  CHECK(c.ours == doctest::Approx(attention.bound({5, 8}, trace).lipschitz));
  CHECK(c.ours < c.refined);
  CHECK(c.refined < c.theorem);
}
