// embedding, prepend_token, select_token, slice_channels, rotary, and dropout of tokens.
#include "op_case.h"

#include <cmath>

namespace {

// Tokens [B, T] below `vocabulary`, some of them several times.
Tensor tokens_of(int64_t batch, int64_t length, int64_t vocabulary) {
  RandomSequence random(RandomStream(21, "tokens"), 0, uint64_t(batch * length));
  std::vector<int32_t> tokens(batch * length);
  for (int32_t& token : tokens) token = int32_t(random.below(uint32_t(vocabulary)));
  return Tensor::from({batch, length}, tokens, DType::i32);
}

// The numbers 0, 1, 2 ... in a shape.
Tensor counting(const Shape& shape) {
  std::vector<double> numbers(shape.size());
  for (size_t i = 0; i < numbers.size(); i++) numbers[i] = double(i);
  return Tensor::from(shape, numbers, DType::f64);
}

RandomStream dropping() { return RandomStream(5, "blocks.0.dropout"); }

}  // namespace

TEST_CASE("ops: embedding") {
  for (const auto& [batch, length, vocabulary, channels] : {std::array<int64_t, 4>{1, 1, 1, 1}, {2, 5, 3, 33}, {3, 7, 50, 40}}) {
    const Tensor tokens = tokens_of(batch, length, vocabulary);
    for (const Role role : {Role::weight, Role::wide_weight})
      check_op({.name = str("embedding of ", tokens.shape(), " in [", vocabulary, ", ", channels, ']'),
                .inputs = {{{vocabulary, channels}, normal(), role}},
                .op = [=](const Inputs& in) { return embedding(tokens.to(in[0].device()), in[0]); }});
  }
  const Tensor many = tokens_of(16, 32, 11);
  check_op({.name = "embedding with rows for threads", .inputs = {{{11, 6}, normal(), Role::weight}},
            .op = [=](const Inputs& in) { return embedding(many.to(in[0].device()), in[0]); }, .samples = 12, .kernels = false});
}

TEST_CASE("ops: embedding by hand") {
  const Tensor tokens = Tensor::from({2, 2}, std::vector<int32_t>{2, 0, 2, 2}, DType::i32);
  Tensor table = Tensor::from({4, 2}, std::vector<double>{0, 1, 10, 11, 20, 21, 30, 31}, DType::f64);
  want_grad(table);
  Tape tape;
  const TapeScope open(&tape);
  const Tensor y = embedding(tokens, table);
  CHECK(y.values() == std::vector<double>{20, 21, 0, 1, 20, 21, 20, 21});
  tape.backward(y, Tensor::from({2, 2, 2}, std::vector<double>{1, 2, 3, 4, 5, 6, 7, 8}, DType::f64));
  CHECK(grad_of(table).values() == std::vector<double>{3, 4, 0, 0, 13, 16, 0, 0});
}

TEST_CASE("ops: embedding refuses tokens outside of its table; on a device they are NaN") {
  const Tensor table = Tensor::zeros({4, 2}, DType::f32);
  for (const int32_t bad : {-1, 4}) {
    const Tensor tokens = Tensor::from({1, 2}, std::vector<int32_t>{3, bad}, DType::i32);
    CHECK_THROWS_WITH_AS(embedding(tokens, table), doctest::Contains(str("number 1 is ", bad).c_str()), Error);
    const Device cuda{Device::cuda};
    const std::vector<double> y = embedding(tokens.to(cuda), table.to(cuda)).to(Device{}).values();
    CHECK(y[0] == 0);
    CHECK(std::isnan(y[2]));
  }
  CHECK_THROWS_AS(embedding(Tensor::zeros({1, 2}, DType::f32), table), Error);
  CHECK_THROWS_AS(embedding(tokens_of(1, 2, 3).view({2}), table), Error);
}

TEST_CASE("ops: embedding adds the gradients of a token in their order, sorted on a device or not; a bad token has none") {
  const GuardedMemory guarded;
  const int64_t channels = 70;
  std::vector<int32_t> numbers;
  for (int i = 0; i < 90; i++) numbers.push_back(i % 3 ? 4 : i % 7);
  RandomSequence random(RandomStream(22, "dy"), 0, 0);
  const Tensor dy = Tensor::from({2, 45, channels}, normal()({2, 45, channels}, random), DType::f32);
  const auto gradient = [&](const std::vector<int32_t>& of, Device device) {
    Tensor table = Tensor::zeros({9, channels}, DType::f32, device);
    want_grad(table);
    Tape tape;
    const TapeScope open(&tape);
    const Tensor y = embedding(Tensor::from({2, 45}, of, DType::i32, device), table);
    tape.backward(y, dy.to(device));
    return grad_of(table).to(Device{}).values();
  };
  const std::vector<double> wanted = gradient(numbers, Device{});
  CHECK(gradient(numbers, Device{Device::cuda}) == wanted);
  std::vector<int32_t> bad = numbers;
  bad.front() = -1, bad.back() = 9;
  const std::vector<double> without = gradient(bad, Device{Device::cuda});
  const size_t first = size_t(numbers.front()) * channels, last = size_t(numbers.back()) * channels;
  for (size_t i = 0; i < without.size(); i++) {
    const bool of_bad = (i >= first && i < first + channels) || (i >= last && i < last + channels);
    CHECK((without[i] == wanted[i]) != of_bad);
  }
}

TEST_CASE("ops: prepend_token") {
  for (const Shape& shape : {Shape{1, 1, 1}, Shape{3, 4, 33}, Shape{2, 7, 8}})
    for (const Role role : {Role::weight, Role::wide_weight})
      check_op({.name = str("prepend_token ", shape), .inputs = {{shape}, {{shape[-1]}, normal(), role}},
                .op = [](const Inputs& in) { return prepend_token(in[0], in[1]); }});
  check_op({.name = "prepend_token, rows for threads", .inputs = {{{70, 2, 3}}, {{3}, normal(), Role::weight}},
            .op = [](const Inputs& in) { return prepend_token(in[0], in[1]); }, .samples = 3, .kernels = false});
  const Tensor y = prepend_token(counting({2, 2, 2}), Tensor::from({2}, std::vector<double>{-1, -2}, DType::f64));
  CHECK(y.values() == std::vector<double>{-1, -2, 0, 1, 2, 3, -1, -2, 4, 5, 6, 7});
}

TEST_CASE("ops: select_token") {
  for (const auto& [shape, index] : {std::pair<Shape, int64_t>{{1, 1, 1}, 0}, {{3, 5, 33}, 0}, {{3, 5, 8}, 4}, {{2, 3, 7}, 1}}) {
    check_op({.name = str("select_token ", index, " of ", shape), .inputs = {{shape}},
              .op = [index = index](const Inputs& in) { return select_token(in[0], index); }});
    check_op({.name = str("select_token of twice ", index, " of ", shape), .inputs = {{shape}},
              .op = [index = index](const Inputs& in) { return add(select_token(in[0], index), select_token(in[0], 0)); }});
  }
  CHECK(select_token(counting({2, 3, 2}), 1).values() == std::vector<double>{2, 3, 8, 9});
}

TEST_CASE("ops: select_token gives back what prepend_token put first") {
  check_op({.name = "select_token of prepend_token", .inputs = {{{3, 4, 5}}, {{5}, normal(), Role::weight}},
            .op = [](const Inputs& in) {
              const Tensor y = prepend_token(in[0], in[1]);
              return add(select_token(y, 0), select_token(y, 3));
            },
            .twin = [](const Inputs& in) { return add_bias(select_token(in[0], 2), in[1]); }});
}

TEST_CASE("ops: slice_channels") {
  for (const auto& [begin, count] : {std::pair<int64_t, int64_t>{0, 1}, {0, 33}, {5, 7}, {30, 3}})
    check_op({.name = str("slice_channels ", begin, "+", count), .inputs = {{{2, 3, 33}}},
              .op = [begin = begin, count = count](const Inputs& in) { return slice_channels(in[0], begin, count); }});
  CHECK(slice_channels(counting({2, 3}), 1, 2).values() == std::vector<double>{1, 2, 4, 5});
}

TEST_CASE("ops: rotary") {
  struct Size {
    Shape x;
    int heads, still;
  };
  for (const auto& [x, heads, still] : {Size{{1, 1, 2}, 1, 0}, Size{{2, 5, 24}, 2, 0}, Size{{2, 5, 24}, 2, 3}, Size{{1, 9, 66}, 1, 20}})
    check_op({.name = str("rotary ", x, " ", heads, " heads, ", still, " still"), .inputs = {{x}},
              .op = [heads = heads, still = still](const Inputs& in) { return rotary(in[0], heads, 1000, still); }});
}

TEST_CASE("ops: rotary turns pairs by the position times their frequency") {
  const int64_t batch = 2, tokens = 7, half = 5;
  const int heads = 3, still = 2;
  RandomSequence random(RandomStream(22, "rotary"), 0, 0);
  const Shape shape{batch, tokens, heads * 2 * half};
  const std::vector<double> x = normal()(shape, random);
  std::vector<double> wanted(x.size());
  for (int64_t b = 0; b < batch; b++)
    for (int64_t t = 0; t < tokens; t++)
      for (int64_t h = 0; h < heads; h++)
        for (int64_t i = 0; i < half; i++) {
          const int64_t at = ((b * tokens + t) * heads + h) * 2 * half + i;
          const double angle = i < half - still ? t * std::pow(1024.0, -double(i) / half) : 0;
          wanted[at] = x[at] * std::cos(angle) - x[at + half] * std::sin(angle);
          wanted[at + half] = x[at] * std::sin(angle) + x[at + half] * std::cos(angle);
        }
  check_close("rotary", wanted, rotary(Tensor::from(shape, x, DType::f64), heads, 1024, still).values(), {1e-28, 1e-14}, shape);
}

TEST_CASE("ops: dropout") {
  for (const double rate : {0.1, 0.6})
    for (const Shape& shape : {Shape{1}, Shape{3, 33}, Shape{2, 3, 32}, Shape{2, 5003}})
      check_op({.name = str("dropout ", rate, " of ", shape), .inputs = {{shape}},
                .op = [=](const Inputs& in) { return dropout(in[0], rate, dropping(), 3, 4); }, .samples = 24});
}

TEST_CASE("ops: dropout is the mask of its stream") {
  const Shape shape{3, 2, 7};
  std::vector<double> wanted;
  for (uint64_t sample = 10; sample < 13; sample++)
    for (uint32_t i = 0; i < 14; i++)
      wanted.push_back(uniform_from(dropping().words(6, sample, i / 4)[i % 4]) < 0.75f ? 2 / 0.75 : 0);
  check_close("dropout", wanted, dropout(Tensor::full(shape, 2, DType::f64), 0.25, dropping(), 6, 10).values(), {1e-30, 1e-15}, shape);
}

TEST_CASE("ops: dropout at rate 0 is the tensor itself") {
  const Tensor x = Tensor::full({2, 3}, 7, DType::f32);
  CHECK(dropout(x, 0, dropping(), 6, 10).raw() == x.raw());
}

TEST_CASE("ops: dropout keeps the mean and the expected part") {
  constexpr int64_t samples = 50, size = 2000;
  for (const double rate : {0.1, 0.5, 0.9}) {
    const std::vector<double> y = dropout(Tensor::full({samples, size}, 1, DType::f64), rate, dropping(), 1, 0).values();
    double kept = 0, sum = 0;
    for (const double v : y) {
      kept += v != 0;
      sum += v;
    }
    const double deviation = std::sqrt(rate * (1 - rate) / y.size());
    CHECK(std::abs(kept / y.size() - (1 - rate)) < 4 * deviation);
    CHECK(std::abs(sum / y.size() - 1) < 4 * deviation / (1 - rate));
  }
}

TEST_CASE("ops: dropout depends on the place in the step's whole batch only") {
  const Tensor x = Tensor::full({12, 4, 7}, 1, DType::f32);
  const std::vector<double> whole = dropout(x, 0.5, dropping(), 3, 100).values();
  for (const int64_t size : {1, 5, 6})
    for (int64_t begin = 0; begin + size <= 12; begin += size)
      CHECK(dropout(x.slice(begin, size), 0.5, dropping(), 3, 100 + begin).values() ==
            std::vector<double>(whole.begin() + begin * 28, whole.begin() + (begin + size) * 28));
  CHECK(dropout(x, 0.5, dropping(), 4, 100).values() != whole);
  CHECK(dropout(x, 0.5, RandomStream(5, "blocks.1.dropout"), 3, 100).values() != whole);
}

TEST_CASE("ops: tokens that do not fit are refused") {
  const Tensor x = Tensor::zeros({2, 3, 6}, DType::f32);
  CHECK_THROWS_WITH_AS(prepend_token(x, Tensor::zeros({5}, DType::f32)), doctest::Contains("[B, N, C] and [C] expected"), Error);
  CHECK_THROWS_AS(prepend_token(x.view({6, 6}), Tensor::zeros({6}, DType::f32)), Error);
  CHECK_THROWS_WITH_AS(select_token(x, 3), doctest::Contains("token 3 of [2, 3, 6]"), Error);
  CHECK_THROWS_AS(select_token(x, -1), Error);
  CHECK_THROWS_WITH_AS(slice_channels(x, 4, 3), doctest::Contains("channels 4+3 of [2, 3, 6]"), Error);
  CHECK_THROWS_AS(slice_channels(x, -1, 2), Error);
  CHECK_THROWS_AS(slice_channels(x, 0, 0), Error);
  CHECK_THROWS_WITH_AS(rotary(x, 2, 1e4, 0), doctest::Contains("with an even d"), Error);
  CHECK_THROWS_AS(rotary(x, 1, 1e4, 4), Error);
  CHECK_THROWS_AS(rotary(x, 1, 0, 0), Error);
  CHECK_THROWS_WITH_AS(dropout(x, 1, dropping(), 0, 0), doctest::Contains("rate must be in [0, 1)"), Error);
  CHECK_THROWS_AS(dropout(x, -0.1, dropping(), 0, 0), Error);
}
