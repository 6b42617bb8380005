// The tape: chains, branches, views, silence, recomputing, and the watch for numbers that are not finite.
#include <doctest/doctest.h>

#include "engine/autograd.h"

#include <cmath>
#include <limits>

#include "engine/ops.h"

namespace {

Tensor leaf(const Shape& shape, const std::vector<double>& values, DType dtype = DType::f64) {
  Tensor x = Tensor::from(shape, values, dtype);
  want_grad(x);
  return x;
}

std::vector<double> gradient(const Tensor& x) {
  const Tensor g = grad_of(x);
  return g ? g.values() : std::vector<double>();
}

using Numbers = std::vector<double>;

struct Step {   // what one forward and backward of `f` gives
  Numbers y, dx, dw, db;
  size_t nodes;
};

// A small block with parameters, run in f32 plainly or recomputed in the backward.
Step run_block(bool recompute, bool x_wants) {
  Numbers values(6), weights(9);
  for (int i = 0; i < 6; i++) values[i] = std::sin(1.7 * i);
  for (int i = 0; i < 9; i++) weights[i] = std::cos(2.3 * i);
  Tensor x = Tensor::from({2, 3}, values, DType::f32);
  if (x_wants) want_grad(x);
  const Tensor w = leaf({3, 3}, weights, DType::f32), b = leaf({3}, {0.1, -0.2, 0.3}, DType::f32);
  const auto f = [&](const Tensor& in) { return add(gelu(linear(in, w, b)), linear(in, w, Tensor())); };
  Tape tape;
  const TapeScope open(&tape);
  const Tensor h = multiply(x, x);
  const Tensor y = scale(recompute ? checkpoint(f, h) : f(h), 0.5);
  Step step{y.values(), {}, {}, {}, tape.size()};
  tape.backward(y, Tensor::from({2, 3}, Numbers{1, -2, 3, 0.5, 0.25, -1}, DType::f32));
  step.dx = gradient(x), step.dw = gradient(w), step.db = gradient(b);
  return step;
}

}  // namespace

TEST_CASE("autograd: a chain") {
  const Tensor x = leaf({2}, {3, -1});
  Tape tape;
  const TapeScope open(&tape);
  const Tensor y = scale(multiply(scale(x, 2), x), 5);   // 10 x^2
  tape.backward(y);
  CHECK(gradient(x) == Numbers{60, -20});
  CHECK_FALSE(grad_of(y));   // what lies between hands its gradient on
  CHECK(tape.size() == 0);
}

TEST_CASE("autograd: a tensor used several times gathers from all uses") {
  const Tensor x = leaf({1}, {3});
  Tape tape;
  const TapeScope open(&tape);
  const Tensor a = scale(x, 2);
  const Tensor y = add(multiply(a, a), add(a, x));   // 4 x^2 + 2x + x
  tape.backward(y);
  CHECK(gradient(x) == Numbers{27});
}

TEST_CASE("autograd: both operands may be the same tensor") {
  const Tensor x = leaf({2}, {3, 4});
  Tape tape;
  const TapeScope open(&tape);
  tape.backward(add(add(x, x), x));
  CHECK(gradient(x) == Numbers{3, 3});
}

TEST_CASE("autograd: a branch that leads nowhere adds nothing") {
  const Tensor x = leaf({1}, {3}), unused = leaf({1}, {1});
  Tape tape;
  const TapeScope open(&tape);
  scale(multiply(x, unused), 100);
  tape.backward(scale(x, 2));
  CHECK(gradient(x) == Numbers{2});
  CHECK_FALSE(grad_of(unused));
}

TEST_CASE("autograd: views share the slot of their tensor") {
  const Tensor x = leaf({2, 3}, {1, 2, 3, 4, 5, 6});
  Tape tape;
  const TapeScope open(&tape);
  const Tensor y = add(scale(x.view({6}), 2), multiply(x.view({3, 2}), x.view({3, 2})).view({6}));
  tape.backward(y.view({1, 6}));
  CHECK(gradient(x) == Numbers{4, 6, 8, 10, 12, 14});
  CHECK(grad_of(x).shape() == Shape{2, 3});
  CHECK(grad_of(x.view({6})).shape() == Shape{6});
}

TEST_CASE("autograd: nothing is recorded without a tape, under a null tape, or where nobody wants a gradient") {
  const Tensor x = leaf({1}, {3}), plain = Tensor::from({1}, Numbers{2}, DType::f64);
  CHECK_FALSE(scale(x, 2).wants_grad());
  Tape tape;
  const TapeScope open(&tape);
  CHECK_FALSE(scale(plain, 2).wants_grad());
  CHECK_FALSE(scale(x.detached(), 2).wants_grad());
  {
    const TapeScope silent(nullptr);
    CHECK_FALSE(scale(x, 2).wants_grad());
  }
  CHECK(tape.size() == 0);
  CHECK(scale(x, 2).wants_grad());
  CHECK(tape.size() == 1);
}

TEST_CASE("autograd: backward refuses what cannot be") {
  const Tensor x = leaf({2}, {3, 4}), plain = Tensor::from({2}, Numbers{2, 3}, DType::f64);
  Tape tape;
  const TapeScope open(&tape);
  const Tensor y = scale(x, 2);
  CHECK_THROWS_WITH_AS(tape.backward(plain), doctest::Contains("nothing that wants a gradient"), Error);
  CHECK_THROWS_WITH_AS(tape.backward(y, Tensor::zeros({3}, DType::f64)), doctest::Contains("gradient is [3], tensor is [2]"), Error);
  CHECK_THROWS_WITH_AS(tape.backward(y, Tensor::zeros({2}, DType::f32)), doctest::Contains("[backward]"), Error);
  tape.backward(y);
  CHECK(gradient(x) == Numbers{2, 2});
}

TEST_CASE("autograd: the tape frees what it kept, node by node") {
  Arena arena(size_t(64) << 20);
  const ArenaScope scope(&arena);
  {
    const Tensor x = leaf({1000}, Numbers(1000, 0.5));
    Tape tape;
    const TapeScope open(&tape);
    Tensor y = x;
    for (int i = 0; i < 10; i++) y = gelu(y);
    const size_t forward = arena.used_bytes();
    tape.backward(y);
    y = Tensor();
    CHECK(arena.used_bytes() == 2 * 8192);   // x and its gradient
    // Each gradient was gone before the next but one was made.
    CHECK(arena.peak_bytes() <= forward + 3 * 8192);
  }
  CHECK(arena.used_bytes() == 0);
}

TEST_CASE("autograd: checkpoint equals plain, bit for bit, and keeps less") {
  for (const bool x_wants : {true, false}) {
    const Step plain = run_block(false, x_wants), again = run_block(true, x_wants);
    CHECK(again.y == plain.y);
    CHECK(again.dx == plain.dx);
    CHECK(again.dw == plain.dw);
    CHECK(again.db == plain.db);
    CHECK(plain.dw.size() == 9);
    CHECK(plain.dx.size() == (x_wants ? 6 : 0));
    CHECK(again.nodes < plain.nodes);
  }
}

TEST_CASE("autograd: checkpoint in checkpoint, and f knows when it runs again") {
  const Tensor x = leaf({1}, {2});
  int runs = 0, recomputed = 0;
  const auto square = [&](const Tensor& in) {
    runs++;
    recomputed += recomputing();
    return multiply(in, in);
  };
  Tape tape;
  const TapeScope open(&tape);
  const Tensor y = checkpoint([&](const Tensor& in) { return scale(checkpoint(square, in), 3); }, x);
  CHECK(runs == 1);
  CHECK(recomputed == 0);
  tape.backward(y);
  CHECK(gradient(x) == Numbers{12});
  CHECK(recomputed == runs - 1);
  CHECK_FALSE(recomputing());
}

TEST_CASE("autograd: the watch names the first op and layer whose output is not finite") {
  const std::string outer = "blocks.0", inner = "blocks.1.mlp";
  const Tensor x = leaf({2}, {1e200, 1});
  const NonFiniteWatch watch;
  const LayerRange in_outer(outer);
  const Tensor fine = scale(x, 2);
  CHECK(watch.found() == nullptr);
  {
    const LayerRange in_inner(inner);
    CHECK(running_layer() == &inner);
    const Tensor bad = multiply(fine, fine);   // 4e400
    add(bad, bad);
  }
  CHECK(running_layer() == &outer);
  REQUIRE(watch.found());
  CHECK(watch.found()->op == "multiply");
  CHECK(watch.found()->layer == inner);
  CHECK(watch.found()->where == "output");
}

TEST_CASE("autograd: the watch names the first op whose gradient is not finite") {
  const std::string first = "blocks.0", second = "blocks.1";
  const Tensor x = leaf({2}, {1, 1});
  const NonFiniteWatch watch;
  Tape tape;
  const TapeScope open(&tape);
  Tensor h, y;
  {
    const LayerRange in_first(first);
    h = scale(x, 1e200);
  }
  {
    const LayerRange in_second(second);
    y = scale(h, 1e-10);
  }
  tape.backward(y, Tensor::full({2}, 1e200, DType::f64));   // 1e190 at h, 1e390 at x
  REQUIRE(watch.found());
  CHECK(watch.found()->op == "scale");
  CHECK(watch.found()->layer == first);
  CHECK(watch.found()->where == "gradient");
}

TEST_CASE("autograd: all_finite") {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64})
    for (const int at : {0, 40, 99})
      for (const double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(),
                               -std::numeric_limits<double>::infinity()}) {
        Numbers values(100, 3e38);
        CHECK(all_finite(Tensor::from({100}, values, dtype)));
        values[at] = bad;
        CHECK_FALSE(all_finite(Tensor::from({100}, values, dtype)));
      }
  CHECK(all_finite(Tensor::zeros({5}, DType::u8)));
}
