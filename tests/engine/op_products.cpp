// linear, linear_gelu, mlp, matmul, weight_norm.
#include "op_case.h"

#include "engine/profile.h"

namespace {

struct Size {
  Shape x;
  int64_t out;
};
const std::vector<Size> sizes{{{1, 1}, 1}, {{7, 33}, 5}, {{2, 3, 7}, 33}, {{4, 8, 16}, 32}, {{130, 40}, 136}};

std::vector<Input> linear_inputs(const Size& size, bool bias, Role role = Role::weight) {
  std::vector<Input> inputs{{size.x}, {{size.out, size.x[-1]}, normal(0.5), role}};
  if (bias) inputs.push_back({{size.out}, normal(), role});
  return inputs;
}

// With a single number the squared error is that of the worst rounding, not of the average one.
Tolerance bf16_tolerance(const Size& size) { return {size.out == 1 ? 1e-4 : 2e-5, 2e-2}; }

bool same_on_threads(const Size& size) { return size.x[0] < 100; }   // larger sums oneDNN splits between threads: see gemm

Tensor bias_of(const Inputs& in) { return in.size() > 2 ? in[2] : Tensor(); }
Tensor plain(const Inputs& in) { return linear(in[0], in[1], bias_of(in)); }
Tensor fused(const Inputs& in) { return linear_gelu(in[0], in[1], bias_of(in)); }
Tensor composed(const Inputs& in) { return gelu(plain(in)); }

// One product for all rows, the bias added by another op.
Tensor by_matmul(const Inputs& in) {
  const int64_t n = in[0].dim(-1), out = in[1].dim(0);
  std::vector<int64_t> dims = in[0].shape().dims();
  dims.back() = out;
  const Tensor y = matmul(in[0].view({1, in[0].rows(), n}), in[1].view({1, out, n}), true).view(Shape(dims));
  return in.size() > 2 ? add_bias(y, in[2]) : y;
}

}  // namespace

TEST_CASE("ops: linear") {
  for (const bool bias : {true, false})
    for (const Size& size : sizes)
      check_op({.name = str("linear ", size.x, " to ", size.out, bias ? " with bias" : ""), .inputs = linear_inputs(size, bias),
                .op = plain, .twin = by_matmul, .b16 = bf16_tolerance(size), .threads = same_on_threads(size)});
  check_op({.name = "linear with f32 weights", .inputs = linear_inputs(sizes[1], true, Role::wide_weight), .op = plain});
}

TEST_CASE("ops: linear_gelu") {
  for (const bool bias : {true, false})
    for (const Size& size : sizes)
      check_op({.name = str("linear_gelu ", size.x, " to ", size.out, bias ? " with bias" : ""), .inputs = linear_inputs(size, bias),
                .op = fused, .twin = composed, .b16 = bf16_tolerance(size), .threads = same_on_threads(size)});
  check_op({.name = "linear_gelu with f32 weights", .inputs = linear_inputs(sizes[1], true, Role::wide_weight), .op = fused});
}

// Rows of whole 16 bytes, where a device fuses, in one tile of the product and in several; and others.
TEST_CASE("ops: mlp") {
  const struct { Shape x; int64_t hidden, out; } widths[] = {{{1, 1}, 1, 1}, {{7, 33}, 5, 8}, {{2, 3, 8}, 16, 8}, {{130, 24}, 136, 40}};
  for (const auto& [x, hidden, out] : widths)
    for (const bool whole : {true, false}) {   // with biases and alphas
      const double deviation = 1 / std::sqrt(double(x[-1]));
      std::vector<Input> inputs{{x}, {{hidden, x[-1]}, normal(deviation), Role::wide_weight}, {{out, hidden}, normal(0.2), Role::weight}};
      if (whole)
        for (const Input& input : {Input{{hidden}, normal(), Role::wide_weight}, Input{{out}, normal(), Role::weight}, Input{{1}, constant(0.8), Role::fixed},
                                   Input{{1}, constant(1.3), Role::fixed}})
          inputs.push_back(input);
      const auto part = [=](const Inputs& in, size_t i) { return whole ? in[i] : Tensor(); };
      check_op({.name = str("mlp ", x, " to ", hidden, " to ", out, whole ? " with biases and alphas" : ""), .inputs = inputs,
                .op = [=](const Inputs& in) { return mlp(in[0], {in[1], part(in, 3), part(in, 5)}, {in[2], part(in, 4), part(in, 6)}); },
                .twin = [=](const Inputs& in) { return linear(gelu(linear(in[0], in[1], part(in, 3), part(in, 5))), in[2], part(in, 4), part(in, 6)); },
                .b16 = bf16_tolerance({x, out}), .samples = 16, .threads = same_on_threads({x, out})});
    }
}

TEST_CASE("ops: fuses_mlp where a device has bf16 in rows of whole 16 bytes") {
  const Tensor x = Tensor::zeros({3, 24}, DType::bf16), odd = Tensor::zeros({3, 20}, DType::bf16);
  CHECK_FALSE(fuses_mlp(x, 96, 24));
  CHECK(fuses_mlp(x.to(Device{Device::cuda}), 96, 24));
  const DryRun counted_as_on_a_device;
  CHECK(fuses_mlp(x, 96, 24));
  CHECK_FALSE(fuses_mlp(x.to(DType::f32), 96, 24));
  CHECK_FALSE(fuses_mlp(odd, 96, 24));
  CHECK_FALSE(fuses_mlp(x, 100, 24));
  CHECK_FALSE(fuses_mlp(x, 96, 20));
}

TEST_CASE("ops: linear and linear_gelu over several blocks of rows") {
  const Size size{{1100, 3}, 520};   // blocks of 512 rows: two full ones and a rest
  const OpFunction ops[] = {plain, fused};
  for (const OpFunction& op : ops)
    check_op({.name = "linear in blocks", .inputs = linear_inputs(size, true), .op = op,
              .twin = [&](const Inputs& in) { return &op == &ops[0] ? by_matmul(in) : gelu(by_matmul(in)); },
              .samples = 0, .kernels = false, .threads = false});   // threads: see gemm
}

TEST_CASE("ops: linear and linear_gelu with a scalar alpha") {
  for (const bool bias : {true, false})
    for (const Size& size : sizes) {
      std::vector<Input> inputs = linear_inputs(size, bias);
      inputs.push_back({{1}, constant(0.37), Role::fixed});
      const auto split = [=](const Inputs& in) { return Inputs(in.begin(), in.end() - 1); };
      const auto scaled = [=](const Inputs& in) {   // the product times 0.37, or what bf16 makes of it, and then the bias
        const Tensor y = scale(linear(in[0], in[1], {}), in.back().item());
        return bias ? add_bias(y, in[2]) : y;
      };
      const std::string name = str(size.x, " to ", size.out, " times alpha", bias ? " with bias" : "");
      check_op({.name = "linear " + name, .inputs = inputs,
                .op = [=](const Inputs& in) { return linear(in[0], in[1], bias_of(split(in)), in.back()); }, .twin = scaled,
                .b16 = bf16_tolerance(size), .threads = same_on_threads(size)});
      if (size.x.size() == 1) continue;   // near a zero of gelu' the rounding of one stored h is all that is left
      check_op({.name = "linear_gelu " + name, .inputs = inputs,
                .op = [=](const Inputs& in) { return linear_gelu(in[0], in[1], bias_of(split(in)), in.back()); },
                .twin = [=](const Inputs& in) { return gelu(scaled(in)); }, .b16 = bf16_tolerance(size), .threads = same_on_threads(size)});
    }
}

TEST_CASE("ops: matmul") {
  const std::vector<std::array<int64_t, 4>> extents{{1, 1, 1, 1}, {3, 7, 33, 5}, {2, 33, 1, 7}, {2, 16, 8, 32}};
  for (const auto& [b, m, k, n] : extents)
    for (const bool transpose : {false, true})
      check_op({.name = str("matmul ", b, " x ", m, " x ", k, " x ", n, transpose ? " transposed" : ""),
                .inputs = {{{b, m, k}}, {transpose ? Shape{b, n, k} : Shape{b, k, n}}},
                .op = [=](const Inputs& in) { return matmul(in[0], in[1], transpose); }});
  check_op({.name = "matmul with itself", .inputs = {{{2, 5, 5}}}, .op = [](const Inputs& in) { return matmul(in[0], in[0], false); }});
  check_op({.name = "Gram matrix", .inputs = {{{2, 5, 7}}}, .op = [](const Inputs& in) { return matmul(in[0], in[0], true); }});
}

TEST_CASE("ops: weight_norm") {
  for (const Shape& shape : {Shape{1, 2}, Shape{5, 33}, Shape{70, 9}, Shape{6, 3, 2, 2}})
    for (const Role role : {Role::weight, Role::wide_weight})
      check_op({.name = str("weight_norm ", shape, role == Role::weight ? "" : ", f32 weights"),
                .inputs = {{shape, normal(0.5), role}, {{shape[0]}, normal(0.3, 1), role}},
                .op = [](const Inputs& in) { return weight_norm(in[0], in[1]); }});
  // Rows of length gain, in the direction of W.
  const Tensor y = weight_norm(Tensor::from({2, 2}, std::vector<double>{3, 4, -5, 12}, DType::f64),
                               Tensor::from({2}, std::vector<double>{10, -1}, DType::f64));
  check_close("weight_norm by hand", {6, 8, 5.0 / 13, -12.0 / 13}, y.values(), {1e-30, 1e-15});
}

TEST_CASE("ops: weight_norm of a zero row is zero, with a finite gradient") {
  Tensor w = Tensor::from({2, 2}, std::vector<double>{0, 0, 1, 1}, DType::f32), gain = Tensor::full({2}, 2, DType::f32);
  want_grad(w), want_grad(gain);
  Tape tape;
  const TapeScope open(&tape);
  const Tensor y = weight_norm(w, gain);
  CHECK(y.slice(0, 1).values() == std::vector<double>{0, 0});
  tape.backward(y, Tensor::full({2, 2}, 1, DType::f32));
  CHECK(grad_of(w).slice(0, 1).values() == std::vector<double>{0, 0});
  CHECK(grad_of(gain).values()[0] == 0);
  CHECK(all_finite(grad_of(w)));
}

TEST_CASE("ops: products refuse shapes that do not agree") {
  const Tensor x = Tensor::zeros({2, 3}, DType::f32), w = Tensor::zeros({4, 3}, DType::f32);
  CHECK_THROWS_WITH_AS(linear(x, Tensor::zeros({4, 2}, DType::f32), {}), doctest::Contains("[linear] x is [2, 3], weight is [4, 2]"), Error);
  CHECK_THROWS_WITH_AS(linear(x, w, Tensor::zeros({3}, DType::f32)), doctest::Contains("[linear] bias is [3], expected [4]"), Error);
  CHECK_THROWS_AS(linear_gelu(x, Tensor::zeros({4, 2}, DType::f32), {}), Error);
  const Tensor narrow = Tensor::zeros({2, 8}, DType::bf16, Device{Device::cuda}), square = Tensor::zeros({8, 8}, DType::bf16, Device{Device::cuda});
  CHECK_THROWS_WITH_AS(mlp(narrow, {square, {}, {}}, {Tensor::zeros({8, 16}, DType::bf16, Device{Device::cuda}), {}, {}}),
                       doctest::Contains("[mlp] x is [2, 8], weight is [8, 16]"), Error);
  CHECK_THROWS_WITH_AS(weight_norm(w, Tensor::zeros({3}, DType::f32)),
                       doctest::Contains("[weight_norm] weight is [4, 3], gain is [3]"), Error);

  CHECK_THROWS_WITH_AS(linear(x, w, {}, Tensor::zeros({4}, DType::f32)), doctest::Contains("alpha must be one number, given [4]"), Error);
  CHECK_THROWS_AS(matmul(x, w, true), Error);
  CHECK_THROWS_AS(matmul(Tensor::zeros({2, 3, 4}, DType::f32), Tensor::zeros({3, 4, 5}, DType::f32), false), Error);
  CHECK_THROWS_AS(matmul(Tensor::zeros({2, 3, 4}, DType::f32), Tensor::zeros({2, 4, 5}, DType::f32), true), Error);
}
