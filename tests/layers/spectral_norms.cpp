// spectral_norms: Lanczos and power iteration against matrices whose singular values are known.
#include "layers/lipschitz/spectral_norms.h"

#include <doctest/doctest.h>

#include "layers/lipschitz/singular_value.h"
#include "matrices.h"

namespace {

double lanczos(const Matrix& m) { return largest_singular_value(m.values.data(), m.rows, m.columns); }

// The estimates after the given numbers of iterations (each on top of those before) on one weight.
std::vector<double> power_iterations(const Shape& shape, ParameterKind kind, const std::vector<double>& values, const std::vector<int>& times,
                                     int64_t height = 0, int64_t width = 0) {
  ParameterStore store;
  const int index = store.add({"w", shape, kind, Init::zeros(), height, width});
  store.finalize(DType::f32, 0, 0);
  fill(store.raw(index), values);
  SpectralNorms norms(store);
  Workers workers(1);
  std::vector<double> estimates;
  for (const int n : times) {
    norms.iterate(workers, n);
    estimates.push_back(norms.sigma(index));
  }
  return estimates;
}

}  // namespace

TEST_CASE("singular value: diagonal, rank one, orthogonal, empty of meaning") {
  Matrix diagonal(5, 5);
  for (int i = 0; i < 5; i++) diagonal.at(i, i) = std::vector{0.5, -7.0, 3.0, 0.0, 6.999}[i];
  CHECK(lanczos(diagonal) == doctest::Approx(7).epsilon(1e-12));

  Matrix rank_one(4, 6);   // u v^T with |u| = sqrt 30, |v| = sqrt 91
  for (int r = 0; r < 4; r++)
    for (int c = 0; c < 6; c++) rank_one.at(r, c) = (r + 1) * (c + 1);
  CHECK(lanczos(rank_one) == doctest::Approx(std::sqrt(30.0 * 91.0)).epsilon(1e-12));

  Matrix turn(2, 2);
  turn.values = {0.6, -0.8, 0.8, 0.6};
  CHECK(lanczos(turn) == doctest::Approx(1).epsilon(1e-12));
  Matrix permutation(150, 150);
  for (int i = 0; i < 150; i++) permutation.at(i, (i * 7 + 3) % 150) = i % 2 ? 1 : -1;
  CHECK(lanczos(permutation) == doctest::Approx(1).epsilon(1e-12));

  CHECK(lanczos(Matrix(3, 4)) == 0);
  Matrix number(1, 1);
  number.at(0, 0) = -4;
  CHECK(lanczos(number) == doctest::Approx(4).epsilon(1e-12));
}

TEST_CASE("singular value: random matrices against Jacobi") {
  for (const auto& [rows, columns] : std::vector<std::pair<int64_t, int64_t>>{{1, 9}, {9, 1}, {6, 6}, {17, 5}, {5, 17}, {48, 40}, {3, 100}}) {
    CAPTURE(rows);
    CAPTURE(columns);
    const Matrix m = random_matrix(rows, columns);
    CHECK(lanczos(m) == doctest::Approx(singular_values(m).front()).epsilon(1e-10));
  }
  const Matrix large = random_matrix(130, 140);   // more than Lanczos takes steps
  CHECK(lanczos(large) == doctest::Approx(singular_values(large).front()).epsilon(1e-6));
}

TEST_CASE("power iteration: converges to the largest singular value, and never from above") {
  for (const auto& [rows, columns] : std::vector<std::pair<int64_t, int64_t>>{{6, 9}, {9, 6}, {1, 8}, {8, 1}, {24, 24}}) {
    CAPTURE(rows);
    CAPTURE(columns);
    const Matrix m = random_matrix(rows, columns);
    const double exact = singular_values(m).front();
    const std::vector<double> estimates = power_iterations({rows, columns}, ParameterKind::matrix, m.values, {1, 1, 3, 5, 20, 600});
    for (size_t i = 0; i < estimates.size(); i++) {
      CHECK(estimates[i] <= exact * (1 + 1e-6));
      if (i) CHECK(estimates[i] >= estimates[i - 1] * (1 - 1e-6));
    }
    CHECK(estimates.back() == doctest::Approx(exact).epsilon(1e-5));
  }
}

TEST_CASE("power iteration: a patch convolution is the matrix of its rows") {
  const Matrix m = random_matrix(8, 12);
  CHECK(power_iterations({8, 3, 2, 2}, ParameterKind::matrix, m.values, {600})[0] == doctest::Approx(singular_values(m).front()).epsilon(1e-5));
}

TEST_CASE("power iteration: follows a weight that changes, and stays calm on one that is zero or not finite") {
  ParameterStore store;
  const int moving = store.add({"moving", {6, 6}, ParameterKind::matrix, Init::zeros()});
  const int zero = store.add({"zero", {4, 3}, ParameterKind::matrix, Init::zeros()});
  const int broken = store.add({"broken", {4, 3}, ParameterKind::matrix, Init::ones()});
  store.add({"vector", {5}, ParameterKind::vector, Init::ones()});
  store.finalize(DType::f32, 0, 0);
  store.raw(broken).data<float>()[0] = NAN;
  SpectralNorms norms(store);
  Workers workers(2);
  const Matrix first = random_matrix(6, 6), second = random_matrix(6, 6, "other");
  for (const Matrix* m : {&first, &second}) {
    fill(store.raw(moving), m->values);
    norms.iterate(workers, 600);
    CHECK(norms.sigma(moving) == doctest::Approx(singular_values(*m).front()).epsilon(1e-5));
  }
  CHECK(norms.sigma(zero) == 0);
  CHECK(std::isnan(norms.sigma(broken)));
  store.raw(broken).data<float>()[0] = 1;   // a NaN that goes away leaves nothing behind
  norms.iterate(workers, 5);
  CHECK(norms.sigma(broken) == doctest::Approx(std::sqrt(12.0)).epsilon(1e-5));
  CHECK(norms.has(moving));
  CHECK(!norms.has(3));
  SpectralNorms again(store);
  again.restore(norms.state(), norms.measured());
  CHECK(again.state() == norms.state());
  CHECK(again.sigma(moving) == norms.sigma(moving));
  again.iterate(workers);
  norms.iterate(workers);
  CHECK(again.sigma(moving) == norms.sigma(moving));
  CHECK_THROWS_AS(again.restore(std::vector<float>(3), norms.measured()), Error);
}

TEST_CASE("power iteration: a depthwise convolution is the zero-padded operator on its map") {
  for (const auto& [height, width] : std::vector<std::pair<int64_t, int64_t>>{{5, 6}, {8, 8}, {2, 2}, {1, 1}}) {
    CAPTURE(height);
    CAPTURE(width);
    const int64_t channels = 3, k = 7;
    const Matrix kernels = random_matrix(channels, k * k);
    double exact = 0;
    for (int64_t c = 0; c < channels; c++)
      exact = std::max(exact, singular_values(correlation_matrix(&kernels.values[c * k * k], k, height, width)).front());
    const std::vector<double> estimates =
        power_iterations({channels, 1, k, k}, ParameterKind::depthwise, kernels.values, {1, 10, 1000}, height, width);
    for (const double estimate : estimates) CHECK(estimate <= exact * (1 + 1e-6));
    CHECK(estimates.back() == doctest::Approx(exact).epsilon(1e-4));
  }
}
