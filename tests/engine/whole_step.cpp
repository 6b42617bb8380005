// What a step does to all parameters at once, on both devices: norms and AdamW over flat buffers, power iteration, notes; and the rules of a
// recorded step.
#include <doctest/doctest.h>

#include <cmath>

#include "engine/capture.h"
#include "engine/capture_rules.h"
#include "engine/flat.h"
#include "engine/measures.h"
#include "engine/ops.h"
#include "engine/power_iteration.h"
#include "op_case.h"

namespace {

constexpr Device cpu{Device::cpu}, cuda{Device::cuda};
using Numbers = std::vector<double>;

Numbers draw(int64_t n, uint64_t seed) {
  RandomSequence random(RandomStream(seed, "whole_step"), 0, 0);
  Numbers out(static_cast<size_t>(n));
  for (double& v : out) v = random.normal();
  return out;
}

Tensor tensor(const Numbers& values, DType dtype, Device device) { return Tensor::from(Shape{int64_t(values.size())}, values, dtype, device); }

const std::vector<FlatRange> ranges = {{0, 5000}, {5024, 5025}, {5056, 9999}};

}  // namespace

TEST_CASE("whole step: the gradient's norms and its clip on both devices") {
  const Numbers g = draw(10000, 1);
  for (const Device device : {cpu, cuda}) {
    const FlatPieces flat(ranges, device);
    const Tensor squares = Tensor::empty({3}, DType::f64, device), numbers = Tensor::zeros({step_slots}, DType::f32, device);
    flat.measure(tensor(g, DType::f64, device), 5, squares, numbers);
    double total = 0;
    for (size_t p = 0; p < ranges.size(); p++) {
      double sum = 0;
      for (int64_t i = ranges[p].begin; i < ranges[p].end; i++) sum += g[size_t(i)] * g[size_t(i)];
      CHECK(squares.values()[p] == doctest::Approx(sum).epsilon(1e-12));
      total += sum;
    }
    CHECK(numbers.values()[step_grad_norm] == doctest::Approx(std::sqrt(total)).epsilon(1e-6));
    CHECK(numbers.values()[step_clip] == doctest::Approx(5 / (std::sqrt(total) + 1e-6)).epsilon(1e-6));
  }
}

TEST_CASE("whole step: AdamW moves every parameter by its formula, and none where the gradient is not finite") {
  const Numbers w = draw(10000, 2), g = draw(10000, 3), m = draw(10000, 4), old = draw(10000, 5);
  Numbers v = draw(10000, 6);
  for (double& x : v) x *= x;
  const double lr = 1e-2, b1 = 0.9, b2 = 0.99, eps = 1e-8, e = 0.95, c1 = 1 - std::pow(b1, 3), c2 = 1 - std::pow(b2, 3), clip = 0.5;
  const std::vector<double> decay{0.05, 0, 0.3};
  for (const Device device : {cpu, cuda})
    for (const bool finite : {true, false}) {
      const FlatPieces flat(ranges, device);
      const Tensor numbers = tensor({lr, c1, c2, finite ? 1.0 : std::nan(""), clip}, DType::f32, device);
      const FlatPieces::AdamW step{tensor(w, DType::f64, device), tensor(g, DType::f64, device), tensor(m, DType::f64, device), tensor(v, DType::f64, device),
                                   tensor(old, DType::f64, device), tensor(decay, DType::f32, device), b1, b2, eps, e};
      flat.adamw(step, numbers);
      Numbers wanted = w, average = old;
      for (size_t p = 0; finite && p < ranges.size(); p++)
        for (size_t i = size_t(ranges[p].begin); i < size_t(ranges[p].end); i++) {
          const double gradient = clip * g[i], m2 = b1 * m[i] + (1 - b1) * gradient, v2 = b2 * v[i] + (1 - b2) * gradient * gradient;
          wanted[i] = (1 - lr * decay[p]) * w[i] - lr / c1 * m2 / (std::sqrt(v2 / c2) + eps);
          average[i] = e * old[i] + (1 - e) * wanted[i];
        }
      // The rates come as f32.
      check_close("weights", wanted, step.weights.values(), finite ? Tolerance{1e-14, 1e-6} : Tolerance{0, 0});
      check_close("average", average, step.ema.values(), finite ? Tolerance{1e-14, 1e-6} : Tolerance{0, 0});
    }
}

TEST_CASE("whole step: power iteration finds the norms of matrices and of each channel's map") {
  // diag(3, 2, 1) beside a 2 x 3 block of known norm, and a depthwise kernel that only scales: its norm is the largest scale.
  Numbers weights{3, 0, 0, 0, 2, 0, 0, 0, 1, /* 2 x 3 */ 1, 1, 1, 1, 1, 1, /* 2 channels of 3 x 3 */};
  const int64_t kernel_at = int64_t(weights.size());
  for (const double scale : {0.5, -4.0})
    for (int tap = 0; tap < 9; tap++) weights.push_back(tap == 4 ? scale : 0);
  for (const Device device : {cpu, cuda}) {
    const PowerIteration iteration({{0, 3, 3, 0}, {9, 2, 3, 3}}, {{kernel_at, 2, 3, 4, 5, 6, 8}}, device);
    const Tensor w = tensor(weights, DType::f32, device), v = tensor(draw(6 + 4 * 5 * 8, 7), DType::f32, device);
    for (int i = 0; i < 60; i++) iteration.iterate(w, v);
    const Numbers sigma = iteration.sigma().values();
    CHECK(sigma[0] == doctest::Approx(3).epsilon(1e-5));
    CHECK(sigma[1] == doctest::Approx(std::sqrt(6.0)).epsilon(1e-5));
    CHECK(sigma[2] == doctest::Approx(4).epsilon(1e-5));
  }
}

TEST_CASE("whole step: the notes of an attention are sums and maxima over all that it saw") {
  const Numbers x = draw(3 * 4 * 5, 8), entropy{0.25, 1.5};
  double longest_sample = 0, longest_token = 0;
  for (int b = 0; b < 3; b++) {
    double sample = 0;
    for (int t = 0; t < 4; t++) {
      double token = 0;
      for (int c = 0; c < 5; c++) token += x[size_t((b * 4 + t) * 5 + c)] * x[size_t((b * 4 + t) * 5 + c)];
      sample += token;
      longest_token = std::max(longest_token, token);
    }
    longest_sample = std::max(longest_sample, sample);
  }
  for (const Device device : {cpu, cuda}) {
    const Tensor report = Tensor::zeros({6}, DType::f64, device);
    for (int pass = 0; pass < 2; pass++)
      note_attention(tensor(entropy, DType::f32, device), tensor(x, DType::f64, device).view({3, 4, 5}), report, 1, 3);
    note_sum(tensor({7}, DType::f64, device), report, 0);
    const Numbers seen = report.values();
    CHECK(seen[0] == 7);
    CHECK(seen[1] == doctest::Approx(2 * 3 * 0.25));
    CHECK(seen[2] == doctest::Approx(2 * 3 * 1.5));
    CHECK(seen[3] == doctest::Approx(longest_sample));
    CHECK(seen[4] == doctest::Approx(longest_token));
  }
}

TEST_CASE("whole step: a recorded step may not wait, read, or ask for new memory") {
  const Tensor x = Tensor::from(Shape{4}, Numbers{1, 2, 3, 4}, DType::f32, cuda), host = Tensor::zeros({4}, DType::f32);
  const auto refused = [&](const std::function<void()>& step, const char* what) {
    StepGraph graph(cuda, 0);
    CHECK_THROWS_WITH_AS(graph.run(step), doctest::Contains(what), Error);
  };
  refused([&] { x.values(); }, "a copy to or from the host");
  refused([&] { x.copy_from(host); }, "a copy to or from the host");
  refused([&] { synchronize(cuda); }, "a wait for the device");
  refused([&] { Tensor::zeros({1000}, DType::f32, cuda); }, "an allocation");
  CHECK_FALSE(capturing());   // also after an error
}

TEST_CASE("whole step: a recorded step gives what an eager one gives, and must find its memory where it was") {
  Arena arena(cuda);
  const Tensor x = Tensor::from(Shape{64}, draw(64, 9), DType::f32, cuda), y = Tensor::empty({64}, DType::f32, cuda);
  StepGraph graph(cuda, 1);
  Tensor keep;
  bool other = false;
  const auto step = [&] {
    const ArenaScope memory(&arena);
    if (other) keep = Tensor::empty({64}, DType::f32, cuda);   // stays, so that what follows lies elsewhere
    y.copy_from(gelu(scale(x, 2)));
  };
  step();
  const Numbers eager = y.values();
  for (int i = 0; i < 3; i++) {
    fill_bytes(y.raw(), cuda, 0, y.bytes());
    graph.run(step);
    CHECK(y.values() == eager);
  }
  CHECK(graph.recorded());
  if (cuda_is_real()) return;   // a real replay does not run the step again
  other = true;
  CHECK_THROWS_WITH_AS(graph.run(step), doctest::Contains("other memory"), Error);
}
