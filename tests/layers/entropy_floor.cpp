// entropy_floor: the published bound to the digit, reached by its own worst case, and never above what heads measure.
#include "layers/lipschitz/entropy_floor.h"

#include "bound_search.h"
#include "layers/attention.h"

TEST_CASE("entropy floor: the table for 197 tokens") {
  const std::vector<std::pair<double, double>> table{{0, 5.28320}, {1, 5.27817}, {2, 5.24210}, {4, 4.64539}, {6, 2.33769}, {8, 0.547866},
                                                     {10, 0.0948556}, {12, 0.0152027}, {15, 9.2549e-4}, {20, 8.0818e-6}};
  for (const auto& [length, expected] : table) {
    CAPTURE(length);
    CHECK(entropy_floor(197, length) == doctest::Approx(expected).epsilon(5e-5));
  }
  CHECK(entropy_floor(5, 3) == doctest::Approx(0.542116).epsilon(1e-5));
  CHECK(entropy_floor(10, 6) == doctest::Approx(0.116368).epsilon(1e-5));
  CHECK(entropy_floor(1, 3) == 0);
  CHECK(entropy_floor(7, INFINITY) == 0);
  CHECK(entropy_floor(7, 1e6) == 0);
  CHECK(std::isfinite(entropy_floor(7, 700)));
}

TEST_CASE("entropy floor: the least over all logits of that length, and one logit reaches it") {
  const auto entropy = [](const std::vector<double>& logits) {
    double sum = 0, mean = 0;
    for (const double l : logits) sum += std::exp(l), mean += l * std::exp(l);
    return std::log(sum) - mean / sum;
  };
  for (const int tokens : {2, 5, 12})
    for (const double size : {0.5, 3.0, 6.0}) {
      const double floor = entropy_floor(tokens, size), t = tokens;
      std::vector<double> worst(size_t(tokens), -size / std::sqrt(t * (t - 1)));
      worst[0] = size * std::sqrt((t - 1) / t);
      CHECK(length(worst) == doctest::Approx(size));
      CHECK(entropy(worst) == doctest::Approx(floor).epsilon(1e-9));
      for (int trial = 0; trial < 200; trial++) {
        std::vector<double> logits;
        for (int i = 0; i < tokens; i++) logits.push_back(normal_number("logits", trial * 100 + i) * (trial % 3 ? 1.0 : i == 0 ? 5.0 : 0.1));
        const double scale = size / length(logits);
        for (double& l : logits) l *= scale;
        CHECK(entropy(logits) >= floor - 1e-12);
      }
    }
}

// Random heads with measured entropies, from nearly uniform to collapsed.
TEST_CASE("entropy floor: no head is below it") {
  struct Form {
    std::string name;
    AttentionPart part;
    bool causal, position_bias, rotary;
  };
  const std::vector<Form> forms{{"dot", {}, false, false, false},
                                {"dot, warm", {.temperature = 3, .separate = true}, false, false, false},
                                {"dot over d", {.by_width = true, .scale = 2, .separate = true}, false, false, false},
                                {"causal", {.separate = true}, true, false, true},
                                {"position bias", {}, false, true, false},
                                {"qk layer norm", {.qk_norm = NormKind::layer}, false, false, false},
                                {"qk rms norm", {.qk_norm = NormKind::rms, .separate = true}, false, false, false},
                                {"l2", {Similarity::l2}, false, false, false},
                                {"cosine", {Similarity::cosine, 1}, false, true, false},
                                {"bounded cosine", {Similarity::cosine_bounded, 1}, true, false, false},
                                {"by heads", {.separate = true, .groups = AttentionPart::heads}, false, false, false}};
  for (const Form& form : forms) {
    CAPTURE(form.name);
    int meaningful = 0;
    for (int trial = 0; trial < 40; trial++) {
      const double size = 0.02 * std::pow(1.2, trial), temperature = trial % 2 ? 1 : 0.5;
      Bench bench;
      const Attention attention(bench.root / str("a", trial), 8, form.part,
                                {.heads = 2, .window_height = 1, .window_width = 6, .position_bias = form.position_bias, .causal = form.causal,
                                 .rotary_base = form.rotary ? 100.0 : 0.0});
      bench.draw(size);
      EntropySums sums{{0, 0}, std::vector<InputSquares>(1), 1};
      Mode mode;
      mode.entropies = &sums;
      mode.temperature = temperature;
      std::vector<double> x;
      for (int i = 0; i < 48; i++) x.push_back(0.5 * normal_number("heads", trial * 100 + i));
      const double square = length(x) * length(x);
      attention(Tensor::from(Shape{1, 1, 6, 8}, x, DType::f64), mode);
      CHECK(sums.inputs[0].sample == doctest::Approx(square).epsilon(1e-12));
      CHECK(sums.inputs[0].token == doctest::Approx(std::pow(longest_token(x, 8), 2)).epsilon(1e-12));
      const std::vector<double> floors = attention.entropy_floors(*bench.norms, sums.inputs[0], temperature);
      CAPTURE(trial);
      REQUIRE(floors.size() == 2);
      for (int h = 0; h < 2; h++) CHECK(sums.sums[h] >= floors[h] - 1e-5);   // handed out in f32
      meaningful += floors[0] > 0.05;
      CHECK(floors[0] >= 0);
    }
    CHECK(meaningful > 0);
  }
}

TEST_CASE("entropy floor: sharper logits and longer inputs lower it, and a shifted window has none") {
  Bench bench;
  const AttentionPlace place{.window_height = 2, .window_width = 2, .qkv_bias = false};
  AttentionPlace shifted = place;
  shifted.shift = 1;
  const Attention attention(bench.root / "a", 2, {.separate = true}, place), masked(bench.root / "b", 2, {.separate = true}, shifted);
  bench.draw(0);
  for (const Linear* l : {&attention.q_proj, &attention.k_proj}) bench.set(l->weight.raw, {2, 0, 0, 2});
  bench.measure();
  const auto floor_of = [&](const Attention& a, double square, double temperature) {
    return a.entropy_floors(*bench.norms, {square, square}, temperature)[0];   // all of X in one token
  };
  const double floor = floor_of(attention, 1, 1);
  CHECK(floor == doctest::Approx(entropy_floor(4, 4 / std::sqrt(2.0))).epsilon(1e-4));   // X of length 1
  CHECK(floor_of(attention, 1, 0.5) < floor);
  CHECK(floor_of(attention, 2, 1) < floor);
  CHECK(floor_of(attention, 1, 2) > floor);
  CHECK(floor_of(masked, 1, 1) == 0);
  // Four tokens of half the length: no logit is above 4 / sqrt 2 / 4, and no row longer than twice that.
  const double largest = 1 / std::sqrt(2.0), even = attention.entropy_floors(*bench.norms, {1, 0.25}, 1)[0];
  CHECK(even == doctest::Approx(std::max(entropy_floor(4, 2 * largest), std::log(4.0) - 2 * largest)).epsilon(1e-4));
  CHECK(even > floor);
}
