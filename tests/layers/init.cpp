// init: what each rule draws.
#include "layers/init.h"

#include <doctest/doctest.h>

#include "layers/linear.h"
#include "layers/lipschitz/singular_value.h"
#include "matrices.h"

namespace {

std::vector<double> drawn(const Shape& shape, const Init& init, const char* stream = "init.w", DType dtype = DType::f64) {
  const Tensor x = Tensor::zeros(shape, dtype);
  initialize(x, init, RandomStream(1, stream));
  return x.values();
}

struct Moments {
  double mean = 0, deviation = 0, largest = 0;
  explicit Moments(const std::vector<double>& values) {
    for (const double v : values) mean += v / double(values.size());
    for (const double v : values) deviation += (v - mean) * (v - mean) / double(values.size());
    for (const double v : values) largest = std::max(largest, std::abs(v));
    deviation = std::sqrt(deviation);
  }
};

}  // namespace

TEST_CASE("init: spectral gives a largest singular value of 1") {
  for (const Shape& shape : {Shape{5, 7}, Shape{64, 16}, Shape{130, 150}, Shape{8, 3, 2, 2}, Shape{6, 6, 1, 1}, Shape{12, 1, 7, 7}}) {
    CAPTURE(str(shape));
    Matrix m(shape[0], shape.size() / shape[0]);
    m.values = drawn(shape, {Init::spectral}, "init.w", DType::f32);
    CHECK(singular_values(m).front() == doctest::Approx(1).epsilon(1e-4));
  }
}

TEST_CASE("init: the other rules have their moments") {
  const Moments normal(drawn({200, 100}, {Init::normal, 0.02}));
  CHECK(normal.deviation == doctest::Approx(0.02).epsilon(0.02));
  CHECK(std::abs(normal.mean) < 6e-4);
  CHECK(normal.largest > 0.06);
  const Moments uniform(drawn({200, 100}, {Init::uniform, 0.5}));
  CHECK(uniform.largest <= 0.5);
  CHECK(uniform.deviation == doctest::Approx(0.5 / std::sqrt(3.0)).epsilon(0.02));
  CHECK(Moments(drawn({300, 100}, {Init::xavier_normal, 1})).deviation == doctest::Approx(std::sqrt(2.0 / 400)).epsilon(0.02));
  // A convolution [out, in, k, k]: fan-in 9 * 20, fan-out 9 * 50.
  CHECK(Moments(drawn({50, 20, 3, 3}, {Init::xavier_normal, 1})).deviation == doctest::Approx(std::sqrt(2.0 / (9 * 70))).epsilon(0.02));
  CHECK(drawn({3}, Init::ones()) == std::vector<double>{1, 1, 1});
  CHECK(drawn({2}, {Init::constant, 0.25}) == std::vector<double>{0.25, 0.25});
}

TEST_CASE("init: orthogonal gives every singular value, in each group of rows") {
  for (const auto& [shape, groups] : std::vector<std::pair<Shape, int64_t>>{
           {{5, 7}, 1}, {{64, 16}, 1}, {{70, 70}, 1}, {{8, 3, 2, 2}, 1}, {{30, 10}, 3}, {{30, 20}, 3}, {{6, 1}, 6}, {{1, 1}, 1}}) {
    CAPTURE(str(shape));
    const Tensor x = Tensor::zeros(shape, DType::f64);
    initialize(x, {Init::orthogonal, 1.5}, RandomStream(1, "init.w"), groups);
    const int64_t rows = shape[0] / groups, columns = shape.size() / shape[0];
    for (int64_t g = 0; g < groups; g++) {
      Matrix m(columns, rows);   // turned, so that Jacobi's columns are the group's rows
      for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++) m.at(c, r) = x.data<double>()[(g * rows + r) * columns + c];
      const std::vector<double> sigma = singular_values(m);
      for (int64_t i = 0; i < std::min(rows, columns); i++) CHECK(sigma[i] == doctest::Approx(1.5).epsilon(1e-12));
    }
  }
  const std::vector<double> square = drawn({100, 100}, {Init::orthogonal, 1});
  CHECK(Moments(square).deviation == doctest::Approx(0.1).epsilon(1e-3));
  CHECK(std::abs(Moments(square).mean) < 2e-3);
}

TEST_CASE("init: each parameter has its own stream") {
  CHECK(drawn({4, 4}, {Init::normal, 1}) == drawn({4, 4}, {Init::normal, 1}));
  CHECK(drawn({4, 4}, {Init::normal, 1}) != drawn({4, 4}, {Init::normal, 1}, "init.other"));
  const auto weights = [](bool with_another) {
    ParameterStore store;
    const Scope root(store, {.init = {InitRule::spectral}});
    if (with_another) Linear(root / "before", 3, 3);
    const Linear layer(root / "fc", 4, 5);
    store.finalize(DType::f32, 0, 9);
    return layer.weight.raw.raw().values();
  };
  CHECK(weights(false) == weights(true));
}
