// Cases of the losses: cross_entropy, cross_entropy_labels.
#include "op_case.h"

#include <cmath>

namespace {

double by_hand(const Tensor& logits, const Tensor& targets, double weight) {
  const std::vector<double> p = softmax(logits).values(), t = targets.values();
  double sum = 0;
  for (size_t i = 0; i < p.size(); i++) sum -= t[i] * std::log(p[i]);
  return weight * sum;
}

// Labels of rows, every fifth of them -1.
std::vector<int32_t> some_labels(const Shape& shape) {
  RandomSequence random(RandomStream(8, "labels"), 0, uint64_t(shape.size()));
  std::vector<int32_t> labels(shape[0]);
  for (size_t i = 0; i < labels.size(); i++) labels[i] = i % 5 == 4 ? -1 : int32_t(random.below(uint32_t(shape[1])));
  return labels;
}

// The same as targets; a row of zeros for -1.
Tensor one_hot(const Shape& shape, const std::vector<int32_t>& labels, const Tensor& logits) {
  std::vector<double> targets(shape.size(), 0.0);
  for (size_t i = 0; i < labels.size(); i++)
    if (labels[i] >= 0) targets[i * shape[1] + labels[i]] = 1;
  return Tensor::from(shape, targets, logits.dtype(), logits.device());
}

}  // namespace

TEST_CASE("ops: cross_entropy") {
  for (const Shape& shape : {Shape{1, 2}, Shape{7, 33}, Shape{32, 10}, Shape{5, 100}, Shape{3, 1000}, Shape{700, 5}})
    check_op({.name = str("cross_entropy ", shape), .inputs = {{shape, normal(3)}, {shape, distribution(), Role::fixed}},
              .op = [=](const Inputs& in) { return cross_entropy(in[0], in[1], 1.0 / double(shape[0])); },
              .samples = 24, .kernels = shape[0] < 100});
  // Targets of mixed images with labels off: rows that do not sum to 1, rows of zeros.
  check_op({.name = "cross_entropy, any targets", .inputs = {{{7, 5}, normal(3)}, {{7, 5}, uniform(0, 1), Role::fixed}},
            .op = [](const Inputs& in) { return cross_entropy(in[0], in[1], 0.3); }});
}

TEST_CASE("ops: cross_entropy against softmax by hand") {
  RandomSequence random(RandomStream(7, "losses"), 0, 0);
  for (const Shape& shape : {Shape{1, 2}, Shape{7, 33}, Shape{32, 10}}) {
    const Tensor x = Tensor::from(shape, normal(3)(shape, random), DType::f64), t = Tensor::from(shape, distribution()(shape, random), DType::f64);
    CHECK(cross_entropy(x, t, 0.125).item() == doctest::Approx(by_hand(x, t, 0.125)).epsilon(1e-12));
    Tensor wanting = x;
    want_grad(wanting);
    Tape tape;
    const TapeScope open(&tape);
    tape.backward(cross_entropy(wanting, t, 0.125));
    std::vector<double> wanted = softmax(x).values();
    for (size_t i = 0; i < wanted.size(); i++) wanted[i] = 0.125 * (wanted[i] - t.values()[i]);
    check_close("gradient of cross_entropy", wanted, grad_of(wanting).values(), {1e-26, 1e-13}, shape);
  }
}

TEST_CASE("ops: cross_entropy of hard labels, far logits and rows without targets") {
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Tensor x = Tensor::from({3, 3}, std::vector<double>{1e4, 0, -1e4, -1e4, 1e4, 0, 5, 6, 7}, dtype);
    const Tensor t = Tensor::from({3, 3}, std::vector<double>{1, 0, 0, 1, 0, 0, 0, 0, 0}, dtype);
    CHECK(cross_entropy(x, t, 0.5).item() == doctest::Approx(1e4).epsilon(1e-6));
  }
}

TEST_CASE("ops: cross_entropy refuses targets of another shape") {
  const Tensor x = Tensor::zeros({2, 3}, DType::f32);
  CHECK_THROWS_WITH_AS(cross_entropy(x, Tensor::zeros({2, 4}, DType::f32), 1), doctest::Contains("[cross_entropy] logits are [2, 3]"), Error);
  CHECK_THROWS_AS(cross_entropy(x, Tensor::zeros({2, 3}, DType::f64), 1), Error);
}

TEST_CASE("ops: cross_entropy_labels") {
  for (const Shape& shape : {Shape{1, 2}, Shape{7, 33}, Shape{32, 10}, Shape{5, 100}, Shape{3, 1000}, Shape{700, 5}}) {
    const std::vector<int32_t> labels = some_labels(shape);
    const Tensor numbers = Tensor::from({shape[0]}, labels, DType::i32);
    check_op({.name = str("cross_entropy_labels ", shape), .inputs = {{shape, normal(1)}},
              .op = [=](const Inputs& in) { return cross_entropy_labels(in[0], numbers.to(in[0].device()), 1.0 / double(shape[0])); },
              .twin = [=](const Inputs& in) { return cross_entropy(in[0], one_hot(shape, labels, in[0]), 1.0 / double(shape[0])); },
              .samples = 24, .kernels = shape[0] < 100});
  }
}

TEST_CASE("ops: cross_entropy_labels does not count -1 and refuses other numbers") {
  Tensor x = Tensor::from({3, 2}, std::vector<double>{1, 2, 3, 4, NAN, 6}, DType::f64);
  want_grad(x);
  const auto labels = [](std::vector<int32_t> numbers) { return Tensor::from({3}, numbers, DType::i32); };
  Tape tape;
  const TapeScope open(&tape);
  const Tensor loss = cross_entropy_labels(x, labels({0, 1, -1}), 0.5);
  CHECK(loss.item() == doctest::Approx(0.5 * (std::log(1 + std::exp(1)) + std::log(1 + std::exp(-1)))).epsilon(1e-14));
  tape.backward(loss);
  const std::vector<double> dx = grad_of(x).values();
  CHECK(dx[0] == doctest::Approx(-0.5 / (1 + std::exp(-1))).epsilon(1e-14));
  CHECK(dx[4] == 0);
  CHECK(dx[5] == 0);
  CHECK_THROWS_WITH_AS(cross_entropy_labels(x, labels({0, 2, 0}), 1), doctest::Contains("number 1 is 2, it must be in [-1, 2)"), Error);
  CHECK_THROWS_AS(cross_entropy_labels(x, labels({0, 0, -2}), 1), Error);
  CHECK_THROWS_AS(cross_entropy_labels(x, Tensor::zeros({2}, DType::i32), 1), Error);
  CHECK_THROWS_AS(cross_entropy_labels(x, Tensor::zeros({3}, DType::f32), 1), Error);
  const Device cuda{Device::cuda};
  CHECK(std::isnan(cross_entropy_labels(Tensor::zeros({3, 2}, DType::f32).to(cuda), labels({0, 2, 0}).to(cuda), 1).to(Device{}).item()));
}
