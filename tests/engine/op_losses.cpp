// Cases of the losses: cross_entropy.
#include "op_case.h"

#include <cmath>

namespace {

double by_hand(const Tensor& logits, const Tensor& targets, double weight) {
  const std::vector<double> p = softmax(logits).values(), t = targets.values();
  double sum = 0;
  for (size_t i = 0; i < p.size(); i++) sum -= t[i] * std::log(p[i]);
  return weight * sum;
}

}  // namespace

TEST_CASE("ops: cross_entropy") {
  for (const Shape& shape : {Shape{1, 2}, Shape{7, 33}, Shape{32, 10}, Shape{700, 5}})
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
