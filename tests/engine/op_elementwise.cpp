// add, multiply, scale, add_bias, multiply_channels, gelu, relu.
#include "op_case.h"

#include <cmath>

namespace {

const std::vector<Shape> shapes{{1}, {7, 33}, {2, 3, 32}};

}  // namespace

TEST_CASE("ops: add") {
  for (const Shape& shape : shapes)
    check_op({.name = str("add ", shape), .inputs = {{shape}, {shape}}, .op = [](const Inputs& in) { return add(in[0], in[1]); }});
  check_op({.name = "add a tensor to itself", .inputs = {{{5, 3}}}, .op = [](const Inputs& in) { return add(in[0], in[0]); }});
  check_op({.name = "add in a diamond",
            .inputs = {{{5, 3}}, {{5, 3}}},
            .op = [](const Inputs& in) {
              const Tensor s = add(in[0], in[1]);
              return add(add(s, in[0]), s);
            },
            .twin = [](const Inputs& in) { return add(scale(in[0], 3), scale(in[1], 2)); }});
}

TEST_CASE("ops: multiply") {
  for (const Shape& shape : shapes)
    check_op({.name = str("multiply ", shape), .inputs = {{shape}, {shape}}, .op = [](const Inputs& in) { return multiply(in[0], in[1]); }});
  check_op({.name = "multiply a tensor by itself", .inputs = {{{5, 3}}}, .op = [](const Inputs& in) { return multiply(in[0], in[0]); }});
}

TEST_CASE("ops: scale") {
  for (const Shape& shape : shapes)
    check_op({.name = str("scale ", shape), .inputs = {{shape}}, .op = [](const Inputs& in) { return scale(in[0], -1.7); }});
}

TEST_CASE("ops: add_bias") {
  for (const Role role : {Role::weight, Role::wide_weight})
    for (const Shape& shape : shapes)
      check_op({.name = str("add_bias ", shape), .inputs = {{shape}, {{shape[-1]}, normal(), role}},
                .op = [](const Inputs& in) { return add_bias(in[0], in[1]); }});
}

TEST_CASE("ops: multiply_channels") {
  for (const Role role : {Role::weight, Role::wide_weight})
    for (const Shape& shape : shapes)
      check_op({.name = str("multiply_channels ", shape), .inputs = {{shape}, {{shape[-1]}, normal(), role}},
                .op = [](const Inputs& in) { return multiply_channels(in[0], in[1]); }});
}

TEST_CASE("ops: gelu") {
  for (const Shape& shape : shapes)
    check_op({.name = str("gelu ", shape), .inputs = {{shape, normal(2)}}, .op = [](const Inputs& in) { return gelu(in[0]); }});
}

TEST_CASE("ops: relu") {
  for (const Shape& shape : shapes)
    check_op({.name = str("relu ", shape), .inputs = {{shape, away_from(0, 0.01, normal())}}, .op = [](const Inputs& in) { return relu(in[0]); }});
  Tensor x = Tensor::from({4}, std::vector<double>{-2, 0, 3, NAN}, DType::f64);
  want_grad(x);
  Tape tape;
  const TapeScope open(&tape);
  const Tensor y = relu(x);
  CHECK(y.slice(0, 3).values() == std::vector<double>{0, 0, 3});
  CHECK(std::isnan(y.values()[3]));
  tape.backward(y, Tensor::full({4}, 5, DType::f64));
  CHECK(grad_of(x).slice(0, 3).values() == std::vector<double>{0, 0, 5});
}

TEST_CASE("ops: elementwise, large enough for threads") {
  check_op({.name = "elementwise [700, 50]",
            .inputs = {{{700, 50}}, {{700, 50}}, {{50}, normal(), Role::weight}, {{50}, normal(), Role::weight}},
            .op = [](const Inputs& in) { return multiply_channels(add_bias(gelu(multiply(add(in[0], in[1]), scale(in[0], 0.5))), in[2]), in[3]); },
            .samples = 2,
            .kernels = false});
}

TEST_CASE("ops: gelu by hand") {
  const Tensor x = Tensor::from({5}, std::vector<double>{-40, -1, 0, 1, 40}, DType::f64);
  const auto by_hand = [](double v) { return v * 0.5 * std::erfc(-v / std::sqrt(2.0)); };
  check_close("gelu", {0, by_hand(-1), 0, by_hand(1), 40}, gelu(x).values(), {1e-28, 1e-14});
}

TEST_CASE("ops: elementwise ops refuse shapes that do not agree") {
  const Tensor a = Tensor::zeros({2, 3}, DType::f32), b = Tensor::zeros({3, 2}, DType::f32), half = Tensor::zeros({2, 3}, DType::bf16);
  CHECK_THROWS_WITH_AS(add(a, b), doctest::Contains("[add] shapes must agree, given [2, 3] and [3, 2]"), Error);
  CHECK_THROWS_AS(add(a, half), Error);
  CHECK_THROWS_AS(multiply(a, b), Error);
  CHECK_THROWS_AS(add_bias(a, Tensor::zeros({2}, DType::f32)), Error);
  CHECK_THROWS_AS(multiply_channels(a, Tensor::zeros({2}, DType::f32)), Error);
}
