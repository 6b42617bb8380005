// Muon's step of many matrices at once: what each of them does alone, and what plain loops make of the formula.
#include "op_case.h"

#include "engine/blas.h"
#include "engine/flat.h"
#include "engine/muon_step.h"

namespace {

using Numbers = std::vector<double>;

const std::vector<Shape> shapes{{1, 1}, {3, 5}, {33, 17}, {49, 98}, {136, 40}, {24, 96}};
const Quintics quintics(5, {3.4445, -4.775, 2.0315});
const MuonRule rule{true, 0.1};

Tensor random_matrix(const Shape& shape, DType dtype, Device device, const char* name) {
  RandomSequence random(RandomStream(4, name), 0, uint64_t(shape.size()));
  return Tensor::from(shape, normal()(shape, random), dtype).to(device);
}

std::vector<MuonStep> all_steps(DType dtype, Device device) {
  std::vector<MuonStep> steps;
  for (const Shape& shape : shapes)
    steps.push_back({random_matrix(shape, dtype, device, "w"), random_matrix(shape, dtype, device, "g"), random_matrix(shape, dtype, device, "m"),
                     0.5 + 0.25 * double(steps.size())});
  return steps;
}

Tensor numbers_with(double norm, Device device) {
  Numbers numbers(step_slots);
  numbers[step_grad_norm] = norm, numbers[step_matrix_lr] = 0.02, numbers[step_momentum] = 0.9;
  return Tensor::from({step_slots}, numbers, DType::f32).to(device);
}

// Weights and momenta behind one another.
Numbers outcome(const std::vector<MuonStep>& steps) {
  Numbers all;
  for (const MuonStep& s : steps)
    for (const Tensor& t : {s.weights, s.momentum}) {
      const Numbers values = t.values();
      all.insert(all.end(), values.begin(), values.end());
    }
  return all;
}

double largest_difference(const Numbers& a, const Numbers& b) {
  REQUIRE(a.size() == b.size());
  double largest = 0;
  for (size_t i = 0; i < a.size(); i++) largest = std::max(largest, std::isnan(a[i] - b[i]) ? double(INFINITY) : std::abs(a[i] - b[i]));
  return largest;
}

// x <- a x + (b A + c A^2) x with A = x x^T, of x / |x|_F [rows, columns].
Numbers plain_orthogonal(Numbers x, int64_t rows, int64_t columns) {
  double squares = 0;
  for (const double v : x) squares += v * v;
  for (double& v : x) v /= std::sqrt(squares);
  Numbers gram(size_t(rows * rows)), cubic(x.size()), fifth(x.size());
  for (const auto& [a, b, c] : quintics) {
    gemm({.transpose_b = true, .m = rows, .n = rows, .k = columns}, x.data(), x.data(), gram.data());
    gemm({.m = rows, .n = columns, .k = rows}, gram.data(), x.data(), cubic.data());
    gemm({.m = rows, .n = columns, .k = rows}, gram.data(), cubic.data(), fifth.data());
    for (size_t i = 0; i < x.size(); i++) x[i] = a * x[i] + b * cubic[i] + c * fifth[i];
  }
  return x;
}

// outcome() by the formula, with the numbers of numbers_with.
Numbers plain_outcome(const std::vector<MuonStep>& steps) {
  const double mu = float(0.9), lr = float(0.02);
  Numbers all;
  for (const MuonStep& s : steps) {
    const Numbers g = s.gradient.values();
    Numbers w = s.weights.values(), m = s.momentum.values(), u(w.size());
    for (size_t i = 0; i < w.size(); i++) {
      m[i] = mu * m[i] + (1 - mu) * g[i];
      u[i] = g[i] + mu * (m[i] - g[i]);
    }
    u = plain_orthogonal(u, s.weights.dim(0), s.weights.dim(1));
    for (size_t i = 0; i < w.size(); i++) w[i] = (1 - lr * rule.decay) * w[i] - lr * s.scale * u[i];
    all.insert(all.end(), w.begin(), w.end());
    all.insert(all.end(), m.begin(), m.end());
  }
  return all;
}

}  // namespace

TEST_CASE("muon step: many matrices at once move as each of them alone") {
  const GuardedMemory guarded;
  for (const Device device : {Device{}, Device{Device::cuda}})
    for (const DType dtype : {DType::f64, DType::f32}) {
      INFO(str(device, " ", dtype));
      const std::vector<MuonStep> together = all_steps(dtype, device), alone = all_steps(dtype, device);
      const Tensor numbers = numbers_with(1, device);
      muon_step(together, rule, quintics, numbers);
      for (const MuonStep& s : alone) muon_step({s}, rule, quintics, numbers);
      CHECK(outcome(together) == outcome(alone));
      CHECK(outcome(together) != outcome(all_steps(dtype, device)));
    }
}

TEST_CASE("muon step: the step is its formula") {
  for (const Device device : {Device{}, Device{Device::cuda}})
    // In bf16 a direction, whose numbers are 1.2 at most, is off by up to four of its last places, 2^-8; a step takes 0.02 * 1.75 of it.
    for (const auto& [dtype, tolerance] : {std::pair{DType::f64, 1e-13}, std::pair{DType::f32, 0.02 * 1.75 * 1.2 * 4 / 256}}) {
      INFO(str(device, " ", dtype));
      const std::vector<MuonStep> steps = all_steps(dtype, device);
      const Numbers wanted = plain_outcome(steps);
      muon_step(steps, rule, quintics, numbers_with(1, device));
      CHECK(largest_difference(outcome(steps), wanted) < tolerance);
    }
}

TEST_CASE("muon step: nothing moves if the gradient's norm is not finite") {
  const Device cuda{Device::cuda};
  const std::vector<MuonStep> steps = all_steps(DType::f32, cuda);
  muon_step(steps, rule, quintics, numbers_with(NAN, cuda));
  CHECK(outcome(steps) == outcome(all_steps(DType::f32, cuda)));
}

TEST_CASE("muon step: a matrix is made orthogonal by the steps alone, and zero stays zero") {
  for (const Device device : {Device{}, Device{Device::cuda}})
    for (const Shape& shape : shapes)
      for (const auto& [dtype, tolerance] : {std::pair{DType::f64, 1e-12}, std::pair{DType::f32, 1e-4}}) {
        INFO(str(device, " ", shape, " ", dtype));
        const Tensor x = random_matrix(shape, dtype, device, "x");
        CHECK(largest_difference(orthogonal(x, quintics).values(), plain_orthogonal(x.values(), shape[0], shape[1])) < tolerance);
        CHECK(orthogonal(Tensor::zeros(shape, dtype, device), quintics).values() == Numbers(size_t(shape.size()), 0));
      }
}
