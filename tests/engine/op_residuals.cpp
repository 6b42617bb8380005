// residual and residual_norm, with and without stochastic depth.
#include "op_case.h"

#include <cmath>

namespace {

const std::vector<Shape> shapes{{1, 2}, {7, 33}, {6, 3, 32}, {9, 96}, {3, 100}};

DropPath dropping(double rate, int64_t first_sample = 0) {
  return {.rate = rate, .stream = RandomStream(11, "blocks.0.drop_path"), .step = 3, .first_sample = first_sample};
}

// The factor of each sample, straight from the stream.
std::vector<double> factors(const DropPath& drop, int64_t samples) {
  std::vector<double> out;
  for (int64_t b = 0; b < samples; b++) {
    const float u = uniform_from(drop.stream.words(drop.step, uint64_t(drop.first_sample + b), 0)[0]);
    out.push_back(u < 1 - drop.rate ? 1 / float(1 - drop.rate) : 0);
  }
  return out;
}

// x + drop(alpha * f) out of small ops; the mask is a tensor.
Tensor by_hand(const Tensor& x, const Tensor& f, const Tensor& alpha, const DropPath& drop) {
  const std::vector<double> factor = factors(drop, x.dim(0));
  std::vector<double> mask(x.size());
  for (int64_t i = 0; i < x.size(); i++) mask[i] = factor[i / (x.size() / x.dim(0))];
  const Tensor branch = alpha ? multiply_channels(f, alpha) : f;
  return add(x, multiply(branch, Tensor::from(x.shape(), mask, x.dtype(), x.device())));
}

std::vector<Input> residual_inputs(const Shape& shape, bool alpha) {
  std::vector<Input> inputs{{shape, normal(1, 0.5)}, {shape}};
  if (alpha) inputs.push_back({{shape[-1]}, normal(0.3, 0.5), Role::weight});
  return inputs;
}

// What a product with `out` rows makes of x.
Shape linear_shape(const Shape& x, int64_t out) {
  std::vector<int64_t> dims = x.dims();
  dims.back() = out;
  return Shape(dims);
}

std::vector<Input> norm_inputs(const Shape& shape, bool alpha) {
  std::vector<Input> inputs{{shape, normal(1, 0.5)}, {shape}, {{shape[-1]}, normal(0.3, 1), Role::wide_weight},
                            {{shape[-1]}, normal(0.3), Role::wide_weight}};
  if (alpha) inputs.push_back({{shape[-1]}, normal(0.3, 0.5), Role::wide_weight});
  return inputs;
}

Tensor norm_of(RowNorm norm, const Tensor& x, const Tensor& w, const Tensor& b) {
  switch (norm) {
    case RowNorm::layer: return layer_norm(x, w, b, 0.1);
    case RowNorm::center: return center_norm(x, w, b);
    case RowNorm::rms: return rms_norm(x, w, b, 0.1);
  }
  return {};
}

const char* name_of(RowNorm norm) { return norm == RowNorm::layer ? " layer" : norm == RowNorm::center ? " center" : " rms"; }

OpCase residual_norm_case(const Shape& shape, RowNorm norm, bool alpha, double rate, bool keep_sum) {
  return {.name = str("residual_norm ", shape, name_of(norm), alpha ? " alpha" : "", " rate ", rate,
                      keep_sum ? " with sum" : ""),
          .inputs = norm_inputs(shape, alpha),
          .op = [=](const Inputs& in) {
            return residual_norm(in[0], in[1], alpha ? in[4] : Tensor(), dropping(rate), norm, in[2], in[3], 0.1, keep_sum);
          },
          .twin = [=](const Inputs& in) {
            const Tensor s = residual(in[0], in[1], alpha ? in[4] : Tensor(), dropping(rate));
            return Outputs(keep_sum ? s : Tensor(), norm_of(norm, s, in[2], in[3]));
          },
          .samples = 24,
          .first_alone = false};
}

// What residual does to the branch of each sample, seen with x = 0 and f = 1.
std::vector<double> seen_factors(const DropPath& drop, int64_t samples) {
  const Tensor x = Tensor::zeros({samples, 2, 3}, DType::f32), f = Tensor::full({samples, 2, 3}, 1, DType::f32);
  const std::vector<double> y = residual(x, f, {}, drop).values();
  std::vector<double> out;
  for (int64_t b = 0; b < samples; b++) {
    out.push_back(y[b * 6]);
    for (int i = 1; i < 6; i++) CHECK(y[b * 6 + i] == y[b * 6]);
  }
  return out;
}

}  // namespace

TEST_CASE("ops: residual") {
  for (const bool alpha : {false, true})
    for (const double rate : {0.0, 0.4})
      for (const Shape& shape : shapes)
        check_op({.name = str("residual ", shape, alpha ? " alpha" : "", " rate ", rate), .inputs = residual_inputs(shape, alpha),
                  .op = [=](const Inputs& in) { return residual(in[0], in[1], alpha ? in[2] : Tensor(), dropping(rate)); },
                  .twin = [=](const Inputs& in) { return by_hand(in[0], in[1], alpha ? in[2] : Tensor(), dropping(rate)); },
                  .samples = 24});
  check_op({.name = "residual of a tensor and itself", .inputs = {{{3, 5}}},
            .op = [](const Inputs& in) { return residual(in[0], in[0], {}, dropping(0.4)); }});
  check_op({.name = "residual [70, 5, 3], rows for threads", .inputs = residual_inputs({70, 5, 3}, true),
            .op = [](const Inputs& in) { return residual(in[0], in[1], in[2], dropping(0.4)); }, .samples = 3, .kernels = false});
}

TEST_CASE("ops: residual with a weight of its skip") {
  for (const double skip : {0.83, 1.7})
    for (const bool alpha : {false, true})
      for (const Shape& shape : shapes)
        check_op({.name = str("residual ", shape, alpha ? " alpha" : "", " skip ", skip), .inputs = residual_inputs(shape, alpha),
                  .op = [=](const Inputs& in) { return residual(in[0], in[1], alpha ? in[2] : Tensor(), dropping(0.4), skip); },
                  .twin = [=](const Inputs& in) { return by_hand(scale(in[0], skip), in[1], alpha ? in[2] : Tensor(), dropping(0.4)); },
                  .samples = 24});
  check_op({.name = "residual of a tensor and itself, skip 0.83", .inputs = {{{3, 5}}},
            .op = [](const Inputs& in) { return residual(in[0], in[0], {}, dropping(0.4), 0.83); }});
}

TEST_CASE("ops: residual with one alpha for all channels, learned or constant") {
  for (const Role role : {Role::weight, Role::wide_weight, Role::fixed})
    for (const double skip : {1.0, 0.83})
      for (const Shape& shape : {Shape{1, 1}, Shape{7, 33}, Shape{6, 3, 32}})
        check_op({.name = str("residual ", shape, " one alpha, skip ", skip), .inputs = {{shape}, {shape}, {{1}, constant(0.37), role}},
                  .op = [=](const Inputs& in) { return residual(in[0], in[1], in[2], dropping(0.4), skip); },
                  .twin = [=](const Inputs& in) {
                    const Tensor branch = multiply_channels(in[1].view({shape.size(), 1}), in[2]).view(shape);
                    return by_hand(scale(in[0], skip), branch, {}, dropping(0.4));
                  },
                  .f32 = {1e-10, 1e-5},   // the gradient of alpha is one number, a sum of up to 576 that may nearly cancel
                  .samples = 24});
}

// x [B, H, W, C], kernel, bias, and an alpha for each channel, for all of them, or none. With strips and without, in one strip and in two; channels
// that fill a group of lanes and that do not.
TEST_CASE("ops: depthwise_conv_gelu_residual") {
  struct Case { Shape x; int64_t kernel; int alphas; double rate, skip; };
  const std::vector<Case> cases{{{2, 5, 9, 35}, 7, 35, 0.4, 1}, {{3, 8, 7, 32}, 7, 32, 0, 1}, {{3, 1, 15, 3}, 7, 1, 0.4, 0.83}, {{2, 3, 2, 5}, 7, 0, 0.4, 1.7},
                                {{3, 4, 8, 5}, 3, 5, 0.4, 1},  {{2, 7, 3, 33}, 5, 1, 0, 0.83}};
  for (const auto& [x, kernel, alphas, rate, skip] : cases)
    for (const Role role : {Role::weight, Role::wide_weight}) {
      std::vector<Input> inputs{{x}, {{x[-1], 1, kernel, kernel}, normal(0.2), role}, {{x[-1]}, normal(0.5), role}};
      if (alphas) inputs.push_back({{alphas}, normal(0.3, 0.5), role});
      const auto alpha = [=](const Inputs& in) { return alphas ? in[3] : Tensor(); };
      const double dropped = rate, times = skip;
      check_op({.name = str("depthwise_conv_gelu_residual ", x, " kernel ", kernel, ", ", alphas, " alphas, rate ", rate, ", skip ", skip),
                .inputs = inputs,
                .op = [=](const Inputs& in) { return depthwise_conv_gelu_residual(in[0], in[1], in[2], alpha(in), dropping(dropped), times); },
                .twin = [=](const Inputs& in) { return residual(in[0], depthwise_conv_gelu(in[0], in[1], in[2]), alpha(in), dropping(dropped), times); },
                .samples = 16});
    }
  const Tensor x = Tensor::zeros({1, 4, 4, 3}, DType::f32), w = Tensor::zeros({3, 1, 3, 3}, DType::f32);
  CHECK_THROWS_WITH_AS(depthwise_conv_gelu_residual(x, w, {}, Tensor::zeros({2}, DType::f32), {}), doctest::Contains("expected [3] or [1]"), Error);
}

// Rows of whole 16 bytes, where a device fuses the product, in one tile of it and in several; and others.
TEST_CASE("ops: linear_gelu_residual") {
  struct Case { Shape x; int64_t out; int alphas; double rate, skip; };
  const std::vector<Case> cases{{{7, 33}, 5, 5, 0.4, 1}, {{6, 3, 16}, 32, 32, 0.4, 1}, {{130, 24}, 136, 1, 0.4, 0.83}, {{2, 5, 8}, 8, 0, 0, 1.7}};
  for (const auto& [x, out, alphas, rate, skip] : cases)
    for (const bool whole : {true, false}) {   // with a bias and a factor of the product
      std::vector<Input> inputs{{linear_shape(x, out)}, {x}, {{out, x[-1]}, normal(1 / std::sqrt(double(x[-1]))), Role::weight}};
      if (alphas) inputs.push_back({{alphas}, normal(0.3, 0.5), Role::wide_weight});
      if (whole) inputs.insert(inputs.end(), {Input{{out}, normal(), Role::wide_weight}, Input{{1}, constant(0.8), Role::fixed}});
      const auto alpha = [=](const Inputs& in) { return alphas ? in[3] : Tensor(); };
      const auto map = [=](const Inputs& in) { return whole ? LinearMap{in[2], in[in.size() - 2], in.back()} : LinearMap{in[2], {}, {}}; };
      const double dropped = rate, times = skip;
      check_op({.name = str("linear_gelu_residual ", x, " to ", out, ", ", alphas, " alphas", whole ? ", whole" : ""),
                .inputs = inputs,
                .op = [=](const Inputs& in) { return linear_gelu_residual(in[0], in[1], map(in), alpha(in), dropping(dropped), times); },
                .twin = [=](const Inputs& in) {
                  const LinearMap m = map(in);
                  return residual(in[0], linear_gelu(in[1], m.weight, m.bias, m.alpha), alpha(in), dropping(dropped), times);
                },
                // One alpha for all has a gradient of 17,680 terms whose sizes add up to a hundred times their sum: 1e-5 of it is one rounding of each.
                // Its squared error is the square of that.
                .f32 = {alphas == 1 ? 1e-10 : 1e-12, 1e-5},
                .b16 = {alphas == 1 ? 4e-4 : 2e-5, 2e-2},
                .samples = 16, .threads = x[0] < 100});   // larger sums oneDNN splits between threads: see gemm
    }
  check_op({.name = "linear_gelu_residual of a tensor and itself", .inputs = {{{3, 8}}, {{8, 8}}},
            .op = [](const Inputs& in) { return linear_gelu_residual(in[0], in[0], {in[1], {}, {}}, {}, dropping(0.4)); }});
  // Blocks of 512 rows: two full ones and a rest.
  check_op({.name = "linear_gelu_residual in blocks", .inputs = {{{1100, 520}}, {{1100, 3}}, {{520, 3}}, {{520}, normal(0.3, 0.5)}},
            .op = [](const Inputs& in) { return linear_gelu_residual(in[0], in[1], {in[2], {}, {}}, in[3], dropping(0.4)); },
            .twin = [](const Inputs& in) { return residual(in[0], linear_gelu(in[1], in[2], {}), in[3], dropping(0.4)); },
            .bf16 = false, .samples = 0, .kernels = false, .threads = false});
  const Tensor x = Tensor::zeros({4, 3}, DType::f32), w = Tensor::zeros({5, 3}, DType::f32);
  CHECK_THROWS_WITH_AS(linear_gelu_residual(x, x, {w, {}, {}}, {}, {}), doctest::Contains("shapes must agree"), Error);
}

TEST_CASE("ops: residual_norm") {
  for (const RowNorm norm : {RowNorm::layer, RowNorm::center, RowNorm::rms})
    for (const bool keep_sum : {true, false}) {
      for (const bool alpha : {false, true})
        for (const double rate : {0.0, 0.4}) check_op(residual_norm_case(shapes[1], norm, alpha, rate, keep_sum));
      check_op(residual_norm_case(shapes[0], norm, true, 0, keep_sum));
      check_op(residual_norm_case(shapes[2], norm, true, 0.4, keep_sum));
    }
  OpCase large = residual_norm_case({70, 5, 9}, RowNorm::layer, true, 0.4, true);
  large.samples = 3;
  large.kernels = false;
  check_op(large);
}

TEST_CASE("ops: residual_norm without a bias") {
  check_op({.name = "residual_norm rms without a bias", .inputs = {{{5, 7}}, {{5, 7}}, {{7}, normal(0.3, 1), Role::wide_weight}},
            .op = [](const Inputs& in) { return residual_norm(in[0], in[1], {}, {}, RowNorm::rms, in[2], {}, 0.1, true); },
            .twin = [](const Inputs& in) {
              const Tensor s = add(in[0], in[1]);
              return Outputs(s, rms_norm(s, in[2], {}, 0.1));
            },
            .first_alone = false});
}

TEST_CASE("ops: residual_norm of a tensor and itself") {
  check_op({.name = "residual_norm of x and x",
            .inputs = {{{5, 7}}, {{7}, normal(0.3, 1), Role::wide_weight}, {{7}, normal(), Role::wide_weight}},
            .op = [](const Inputs& in) { return residual_norm(in[0], in[0], {}, {}, RowNorm::layer, in[1], in[2], 0.1, true); },
            .twin = [](const Inputs& in) {
              const Tensor s = scale(in[0], 2);
              return Outputs(s, layer_norm(s, in[1], in[2], 0.1));
            },
            .first_alone = false});
}

TEST_CASE("ops: residual_norm says so when only the sum was used") {
  Tensor x = Tensor::full({2, 3}, 1, DType::f32);
  want_grad(x);
  const Tensor w = Tensor::full({3}, 1, DType::f32);
  Tape tape;
  const TapeScope open(&tape);
  const Sum s = residual_norm(x, x, {}, {}, RowNorm::layer, w, w, 1e-5, true);
  CHECK_THROWS_WITH_AS(tape.backward(s.sum), doctest::Contains("call residual instead"), Error);
}

TEST_CASE("drop path: the fraction that is kept, and the scale") {
  constexpr int64_t samples = 20000;
  for (const double rate : {0.1, 0.5, 0.9}) {
    const std::vector<double> seen = seen_factors(dropping(rate), samples);
    const double kept = 1 / (1 - rate);
    int64_t count = 0;
    for (const double v : seen) {
      CHECK((v == 0 || v == doctest::Approx(kept).epsilon(1e-6)));
      count += v != 0;
    }
    const double deviation = std::sqrt(rate * (1 - rate) / samples);
    CHECK(std::abs(double(count) / samples - (1 - rate)) < 4 * deviation);
  }
  CHECK(seen_factors(dropping(0), 5) == std::vector<double>(5, 1));
}

TEST_CASE("drop path: a mask depends on the sample's place in the step's whole batch only") {
  const std::vector<double> whole = seen_factors(dropping(0.5), 64);
  for (const int64_t size : {1, 7, 32})
    for (int64_t begin = 0; begin + size <= 64; begin += size) {
      const std::vector<double> part = seen_factors(dropping(0.5, begin), size);
      CHECK(part == std::vector<double>(whole.begin() + begin, whole.begin() + begin + size));
    }
  DropPath other_step = dropping(0.5), other_stream = dropping(0.5);
  other_step.step = 4;
  other_stream.stream = RandomStream(11, "blocks.1.drop_path");
  CHECK(seen_factors(other_step, 64) != whole);
  CHECK(seen_factors(other_stream, 64) != whole);
}

TEST_CASE("ops: residuals refuse what does not fit") {
  const Tensor x = Tensor::zeros({2, 3}, DType::f32), w = Tensor::zeros({3}, DType::f32), bad = Tensor::zeros({2}, DType::f32);
  CHECK_THROWS_WITH_AS(residual(x, bad, {}, {}), doctest::Contains("[residual] x is [2, 3], branch is [2]"), Error);
  CHECK_THROWS_AS(residual(x, x, bad, {}), Error);
  CHECK_THROWS_WITH_AS(residual(x, x, {}, dropping(1)), doctest::Contains("rate must be in [0, 1)"), Error);
  CHECK_THROWS_AS(residual(x, x, {}, dropping(-0.1)), Error);
  CHECK_THROWS_AS(residual_norm(x, x, {}, {}, RowNorm::layer, bad, w, 1e-5, true), Error);
  CHECK_THROWS_AS(residual_norm(x, x, bad, {}, RowNorm::layer, w, w, 1e-5, true), Error);
  const Tensor thin = Tensor::zeros({2, 1}, DType::f32), one = Tensor::zeros({1}, DType::f32);
  CHECK_THROWS_WITH_AS(residual_norm(thin, thin, {}, {}, RowNorm::center, one, one, 0, true), doctest::Contains("at least 2 channels"), Error);
}
