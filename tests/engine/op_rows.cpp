// softmax, l2_normalize, center_norm, layer_norm, rms_norm, ball, mean_tokens.
#include "op_case.h"

#include <cmath>

namespace {

// On CUDA rows of whole 16 bytes lie in the registers of a part of a warp: 32, 96, 100 as f32; many rows make several blocks.
const std::vector<Shape> shapes{{1, 2}, {7, 33}, {2, 3, 32}, {5, 7}, {9, 96}, {3, 100}, {140, 8}};

// The mean over the last dimension, put back in every column, out of products only: x M with M = 1/C everywhere.
Tensor row_mean(const Tensor& x) {
  const int64_t c = x.dim(-1);
  return linear(x, Tensor::full({c, c}, 1.0 / double(c), x.dtype(), x.device()), {});
}

// y = w D/(D-1) (x - mean) + b, out of small ops.
Tensor center_by_hand(const Inputs& in) {
  const double d = double(in[0].dim(-1));
  const Tensor centered = add(in[0], scale(row_mean(in[0]), -1));
  return add_bias(multiply_channels(scale(centered, d / (d - 1)), in[1]), in[2]);
}

// LayerNorm is the l2 normalisation of the centered row, times sqrt(D), with eps times D inside.
Tensor layer_by_hand(const Inputs& in, double eps) {
  const double d = double(in[0].dim(-1));
  const Tensor centered = add(in[0], scale(row_mean(in[0]), -1));
  return add_bias(multiply_channels(scale(l2_normalize(centered, eps * d, true), std::sqrt(d)), in[1]), in[2]);
}

// RMSNorm is the l2 normalisation of the row, times sqrt(D), with eps times D inside.
Tensor rms_by_hand(const Inputs& in, double eps) {
  const double d = double(in[0].dim(-1));
  const Tensor y = multiply_channels(scale(l2_normalize(in[0], eps * d, true), std::sqrt(d)), in[1]);
  return in.size() > 2 ? add_bias(y, in[2]) : y;
}

std::vector<double> plain_rows(const Tensor& x, const std::function<void(const double* in, double* out, int64_t n)>& row) {
  const std::vector<double> in = x.values();
  std::vector<double> out(in.size());
  for (int64_t r = 0, n = x.dim(-1); r < x.rows(); r++) row(in.data() + r * n, out.data() + r * n, n);
  return out;
}

std::vector<Input> norm_inputs(const Shape& shape, Role role = Role::wide_weight) {
  return {{shape, normal(1.5, 0.7)}, {{shape[-1]}, normal(0.3, 1), role}, {{shape[-1]}, normal(0.3), role}};
}

Tensor some(const Shape& shape, double deviation = 1) {
  RandomSequence random(RandomStream(6, "rows"), 0, 0);
  return Tensor::from(shape, normal(deviation)(shape, random), DType::f64);
}

}  // namespace

TEST_CASE("ops: softmax") {
  for (const Shape& shape : {Shape{3, 1}, shapes[1], shapes[2], shapes[3]})
    check_op({.name = str("softmax ", shape), .inputs = {{shape, normal(3)}}, .op = [](const Inputs& in) { return softmax(in[0]); }});
  const Tensor x = some({7, 33}, 3);
  check_close("softmax by hand", plain_rows(x, [](const double* in, double* out, int64_t n) {
                double sum = 0;
                for (int64_t i = 0; i < n; i++) sum += std::exp(in[i]);
                for (int64_t i = 0; i < n; i++) out[i] = std::exp(in[i]) / sum;
              }), softmax(x).values(), {1e-28, 1e-14});
}

TEST_CASE("ops: softmax of numbers far apart is finite") {
  for (const DType dtype : {DType::f32, DType::f64, DType::bf16}) {
    const Tensor x = Tensor::from({2, 3}, std::vector<double>{1e4, -1e4, 0, -3e38, 3e38, 3e38}, dtype);
    CHECK(softmax(x).values() == std::vector<double>{1, 0, 0, 0, 0.5, 0.5});
  }
}

TEST_CASE("ops: l2_normalize") {
  for (const bool inside : {true, false})
    for (const Shape& shape : shapes)
      for (const double eps : {1e-6, 0.5})
        check_op({.name = str("l2_normalize ", shape, " eps ", eps, inside ? " inside" : " as a floor"), .inputs = {{shape}},
                  .op = [=](const Inputs& in) { return l2_normalize(in[0], eps, inside); }});
  // All rows shorter than the floor: a plain division.
  check_op({.name = "l2_normalize under the floor", .inputs = {{{4, 3}, uniform(-0.1, 0.1)}},
            .op = [](const Inputs& in) { return l2_normalize(in[0], 2, false); },
            .twin = [](const Inputs& in) { return scale(in[0], 0.5); }});
  const Tensor x = some({5, 7});
  for (const bool inside : {true, false})
    check_close("l2_normalize by hand", plain_rows(x, [=](const double* in, double* out, int64_t n) {
                  double squares = 0;
                  for (int64_t i = 0; i < n; i++) squares += in[i] * in[i];
                  const double length = inside ? std::sqrt(squares + 0.3) : std::max(std::sqrt(squares), 0.3);
                  for (int64_t i = 0; i < n; i++) out[i] = in[i] / length;
                }), l2_normalize(x, 0.3, inside).values(), {1e-28, 1e-14});
}

TEST_CASE("ops: l2_normalize of a zero row is zero, with a finite gradient") {
  for (const bool inside : {true, false}) {
    Tensor x = Tensor::zeros({1, 4}, DType::f32);
    want_grad(x);
    Tape tape;
    const TapeScope open(&tape);
    const Tensor y = l2_normalize(x, 1e-6, inside);
    CHECK(y.values() == std::vector<double>(4, 0));
    tape.backward(y);
    CHECK(all_finite(grad_of(x)));
  }
}

TEST_CASE("ops: center_norm") {
  for (const Shape& shape : shapes)
    check_op({.name = str("center_norm ", shape), .inputs = norm_inputs(shape),
              .op = [](const Inputs& in) { return center_norm(in[0], in[1], in[2]); }, .twin = center_by_hand});
  check_op({.name = "center_norm, bf16 weights", .inputs = norm_inputs({5, 7}, Role::weight),
            .op = [](const Inputs& in) { return center_norm(in[0], in[1], in[2]); }});
}

TEST_CASE("ops: layer_norm") {
  for (const Shape& shape : shapes)
    for (const double eps : {1e-5, 0.1})
      check_op({.name = str("layer_norm ", shape, " eps ", eps), .inputs = norm_inputs(shape),
                .op = [=](const Inputs& in) { return layer_norm(in[0], in[1], in[2], eps); },
                .twin = [=](const Inputs& in) { return layer_by_hand(in, eps); },
                .gradient = shape == shapes[0] ? 1e-5 : 1e-6,   // two columns: the gradient is nearly 0, the terms are not
                .composed = shape == shapes[0] ? 1e-9 : 1e-12,
                .f64 = shape == shapes[0] ? Tolerance{1e-18, 1e-9} : Tolerance{1e-24, 1e-11},
                .f32 = shape == shapes[0] ? Tolerance{1e-6, 1e-3} : Tolerance{1e-12, 1e-5}});
  check_op({.name = "layer_norm, bf16 weights", .inputs = norm_inputs({5, 7}, Role::weight),
            .op = [](const Inputs& in) { return layer_norm(in[0], in[1], in[2], 1e-5); }});
}

TEST_CASE("ops: layer_norm without a bias") {
  for (const Shape& shape : {shapes[1], shapes[2]}) {
    std::vector<Input> inputs = norm_inputs(shape);
    inputs.pop_back();
    check_op({.name = str("layer_norm without a bias ", shape), .inputs = inputs,
              .op = [](const Inputs& in) { return layer_norm(in[0], in[1], {}, 0.1); },
              .twin = [](const Inputs& in) { return layer_norm(in[0], in[1], Tensor::zeros(in[1].shape(), in[1].dtype()), 0.1); }});
  }
}

TEST_CASE("ops: rms_norm") {
  for (const bool with_bias : {true, false})
    for (const Shape& shape : shapes) {
      std::vector<Input> inputs = norm_inputs(shape);
      if (!with_bias) inputs.pop_back();
      check_op({.name = str("rms_norm ", shape, with_bias ? " with bias" : ""), .inputs = inputs,
                .op = [](const Inputs& in) { return rms_norm(in[0], in[1], in.size() > 2 ? in[2] : Tensor(), 0.1); },
                .twin = [](const Inputs& in) { return rms_by_hand(in, 0.1); }});
    }
  check_op({.name = "rms_norm, bf16 weights", .inputs = norm_inputs({5, 7}, Role::weight),
            .op = [](const Inputs& in) { return rms_norm(in[0], in[1], in[2], 1e-6); }});
  const Tensor x = some({7, 33}, 2), w = some({33});
  const std::vector<double> weight = w.values();
  check_close("rms_norm by hand", plain_rows(x, [&](const double* in, double* out, int64_t n) {
                double squares = 0;
                for (int64_t i = 0; i < n; i++) squares += in[i] * in[i] / n;
                for (int64_t i = 0; i < n; i++) out[i] = weight[i] * in[i] / std::sqrt(squares + 1e-6);
              }), rms_norm(x, w, {}, 1e-6).values(), {1e-28, 1e-14});
}

TEST_CASE("ops: ball") {
  for (const Shape& shape : shapes)
    for (const double radius : {0.5, 1.0})   // some rows of deviation 1 lie outside, some inside
      check_op({.name = str("ball ", shape, " radius ", radius), .inputs = {{shape}},
                .op = [=](const Inputs& in) { return ball(in[0], radius); }});
  check_op({.name = "ball, all rows outside", .inputs = {{{5, 7}, normal(1, 4)}}, .op = [](const Inputs& in) { return ball(in[0], 2); },
            .twin = [](const Inputs& in) { return scale(l2_normalize(in[0], 0, true), 2 * std::sqrt(7.0)); }});
  const Tensor inside = some({5, 7}, 0.3);
  CHECK(ball(inside, 10).values() == inside.values());
  const Tensor x = some({40, 7});
  int outside = 0;
  check_close("ball by hand", plain_rows(x, [&](const double* in, double* out, int64_t n) {
                double squares = 0;
                for (int64_t i = 0; i < n; i++) squares += in[i] * in[i] / n;
                outside += std::sqrt(squares) > 1;
                for (int64_t i = 0; i < n; i++) out[i] = in[i] / std::max(1.0, std::sqrt(squares));
              }), ball(x, 1).values(), {1e-28, 1e-14});
  CHECK(outside > 5);
  CHECK(outside < 35);
  CHECK_THROWS_WITH_AS(ball(x, 0), doctest::Contains("[ball] the radius must be positive"), Error);
}

TEST_CASE("ops: norms by plain arithmetic") {
  const Tensor x = some({7, 33}, 2), w = some({33}), b = scale(w, -0.4);
  const std::vector<double> weight = w.values(), bias = b.values();
  for (const bool layer : {true, false}) {
    const std::vector<double> wanted = plain_rows(x, [&](const double* in, double* out, int64_t n) {
      double mean = 0, variance = 0;
      for (int64_t i = 0; i < n; i++) mean += in[i] / n;
      for (int64_t i = 0; i < n; i++) variance += (in[i] - mean) * (in[i] - mean) / n;
      const double factor = layer ? 1 / std::sqrt(variance + 1e-5) : double(n) / (n - 1);
      for (int64_t i = 0; i < n; i++) out[i] = weight[i] * factor * (in[i] - mean) + bias[i];
    });
    const Tensor y = layer ? layer_norm(x, w, b, 1e-5) : center_norm(x, w, b);
    check_close(layer ? "layer_norm" : "center_norm", wanted, y.values(), {1e-28, 1e-14});
  }
}

TEST_CASE("ops: mean_tokens") {
  for (const Shape& shape : {Shape{1, 1, 1}, Shape{2, 7, 33}, Shape{3, 4, 32}})
    check_op({.name = str("mean_tokens ", shape), .inputs = {{shape}}, .op = [](const Inputs& in) { return mean_tokens(in[0]); },
              .twin = [](const Inputs& in) {
                const int64_t b = in[0].dim(0), n = in[0].dim(1), c = in[0].dim(2);
                return matmul(Tensor::full({b, 1, n}, 1.0 / double(n), in[0].dtype()), in[0], false).view({b, c});
              }});
}

TEST_CASE("ops: rows, enough of them for threads and chunks") {
  check_op({.name = "rows [700, 9]", .inputs = norm_inputs({700, 9}),
            .op = [](const Inputs& in) {
              const Tensor y = add(layer_norm(in[0], in[1], in[2], 1e-5), center_norm(in[0], in[1], in[2]));
              return mean_tokens(add(softmax(y), l2_normalize(y, 1e-6, true)).view({100, 7, 9}));
            },
            .b16 = {5e-5, 2e-2},   // five ops in a row
            .samples = 1, .kernels = false});
  check_op({.name = "layer_norm [130, 5], chunks of the kernel", .inputs = norm_inputs({130, 5}),
            .op = [](const Inputs& in) { return layer_norm(in[0], in[1], in[2], 0.1); }, .samples = 3});
}

TEST_CASE("ops: norms refuse what does not fit") {
  const Tensor x = Tensor::zeros({2, 3}, DType::f32), w = Tensor::zeros({3}, DType::f32), bad = Tensor::zeros({2}, DType::f32);
  CHECK_THROWS_WITH_AS(layer_norm(x, bad, w, 1e-5), doctest::Contains("[layer_norm] x is [2, 3], weight is [2]"), Error);
  CHECK_THROWS_AS(center_norm(x, w, bad), Error);
  CHECK_THROWS_AS(rms_norm(x, w, bad, 1e-5), Error);
  const Tensor one = Tensor::zeros({1}, DType::f32);
  CHECK_THROWS_WITH_AS(center_norm(Tensor::zeros({2, 1}, DType::f32), one, one), doctest::Contains("at least 2 channels"), Error);
  CHECK_THROWS_AS(mean_tokens(x), Error);
}
