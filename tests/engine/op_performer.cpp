// performer_features, linear_attention.
#include "op_case.h"

#include <cmath>

namespace {

struct Size {
  int64_t batch, tokens, features, columns;
  Shape q() const { return {batch, tokens, features}; }
  Shape v() const { return {batch, tokens, columns}; }
};
const std::vector<Size> sizes{{1, 1, 1, 1}, {2, 5, 7, 33}, {3, 9, 32, 16}};

std::vector<double> numbers(const Shape& shape, const Values& values, uint64_t sample) {
  RandomSequence random(RandomStream(41, "performer"), 0, sample);
  return values(shape, random);
}

}  // namespace

TEST_CASE("ops: performer_features") {
  for (const Role role : {Role::fixed, Role::weight, Role::wide_weight})
    for (const Size& s : sizes)
      check_op({.name = str("performer_features ", s.v(), " to ", s.features),
                .inputs = {{s.v(), normal(0.4)}, {{s.features, s.columns}, normal(0.5), role}},
                .op = [](const Inputs& in) { return performer_features(in[0], in[1]); }, .samples = 32});
  check_op({.name = "performer_features, rows for threads", .inputs = {{{5, 20, 3}}, {{4, 3}, normal(), Role::weight}},
            .op = [](const Inputs& in) { return performer_features(in[0], in[1]); }, .samples = 3, .kernels = false,
            .threads = false});   // see gemm
}

TEST_CASE("ops: performer_features by hand") {
  const int64_t tokens = 6, columns = 5, features = 4;
  const std::vector<double> x = numbers({tokens, columns}, normal(), 0), w = numbers({features, columns}, normal(), 1);
  std::vector<double> wanted;
  for (int64_t t = 0; t < tokens; t++)
    for (int64_t f = 0; f < features; f++) {
      double exponent = 0;
      for (int64_t j = 0; j < columns; j++) exponent += x[t * columns + j] * (w[f * columns + j] - x[t * columns + j] / 2);
      wanted.push_back(std::exp(exponent) / 2);
    }
  const Tensor given_x = Tensor::from({2, tokens / 2, columns}, x, DType::f64), given_w = Tensor::from({features, columns}, w, DType::f64);
  const Tensor y = performer_features(given_x, given_w);
  check_close("performer_features", wanted, y.values(), {1e-28, 1e-14}, y.shape());
}

TEST_CASE("ops: performer_features of a long token are 0, not NaN") {
  const Tensor x = Tensor::full({1, 1, 8}, 30, DType::f32), w = Tensor::full({2, 8}, -1, DType::f32);
  CHECK(performer_features(x, w).values() == std::vector<double>{0, 0});
}

TEST_CASE("ops: linear_attention") {
  for (const Size& s : sizes)
    check_op({.name = str("linear_attention ", s.q(), " and ", s.v()),
              .inputs = {{s.q(), uniform(0.05, 1)}, {s.q(), uniform(0.05, 1)}, {s.v()}},
              .op = [](const Inputs& in) { return linear_attention(in[0], in[1], in[2], 1e-2); }, .samples = 32});
  check_op({.name = "linear_attention of one tensor", .inputs = {{{2, 5, 4}, uniform(0.05, 1)}},
            .op = [](const Inputs& in) { return linear_attention(in[0], in[0], in[0], 1e-3); }});
  const Input positive{{70, 3, 4}, uniform(0.05, 1)};
  check_op({.name = "linear_attention, rows for threads", .inputs = {positive, positive, {{70, 3, 5}}},
            .op = [](const Inputs& in) { return linear_attention(in[0], in[1], in[2], 1e-3); }, .samples = 3, .kernels = false,
            .threads = false});
}

TEST_CASE("ops: linear_attention by hand") {
  const Size s{2, 6, 3, 4};
  const double eps = 0.01;
  const std::vector<double> q = numbers(s.q(), uniform(0, 1), 2), k = numbers(s.q(), uniform(0, 1), 3), v = numbers(s.v(), normal(), 4);
  std::vector<double> wanted(v.size());
  for (int64_t b = 0; b < s.batch; b++)
    for (int64_t t = 0; t < s.tokens; t++) {
      double total = eps;
      double* out = &wanted[(b * s.tokens + t) * s.columns];
      for (int64_t i = 0; i < s.tokens; i++) {
        double weight = 0;
        for (int64_t f = 0; f < s.features; f++) weight += q[(b * s.tokens + t) * s.features + f] * k[(b * s.tokens + i) * s.features + f];
        total += weight;
        for (int64_t j = 0; j < s.columns; j++) out[j] += weight * v[(b * s.tokens + i) * s.columns + j];
      }
      for (int64_t j = 0; j < s.columns; j++) out[j] /= total;
    }
  const auto tensor = [](const Shape& shape, const std::vector<double>& x) { return Tensor::from(shape, x, DType::f64); };
  const Tensor y = linear_attention(tensor(s.q(), q), tensor(s.q(), k), tensor(s.v(), v), eps);
  check_close("linear_attention", wanted, y.values(), {1e-28, 1e-14}, y.shape());
}

TEST_CASE("ops: performer ops refuse shapes that do not agree") {
  const Tensor x = Tensor::zeros({2, 3, 4}, DType::f32);
  CHECK_THROWS_WITH_AS(performer_features(x, Tensor::zeros({4, 5}, DType::f32)), doctest::Contains("given [2, 3, 4] and [4, 5]"), Error);
  CHECK_THROWS_AS(performer_features(x.view({6, 4}), Tensor::zeros({5, 4}, DType::f32)), Error);
  CHECK_THROWS_AS(linear_attention(x, Tensor::zeros({2, 3, 5}, DType::f32), x, 1e-8), Error);
  CHECK_THROWS_AS(linear_attention(x, x, Tensor::zeros({2, 4, 4}, DType::f32), 1e-8), Error);
  CHECK_THROWS_AS(linear_attention(x, x, Tensor::zeros({2, 3, 4}, DType::f64), 1e-8), Error);
}
