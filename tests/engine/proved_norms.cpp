// proved_norms: bounds of many matrices at once that are never below the truth, and how tight they are.
#include "engine/proved_norms.h"

#include <doctest/doctest.h>

#include "engine/fibers.h"
#include "schedules.h"
#include "tests/layers/matrices.h"

namespace {

constexpr Device cuda{Device::cuda};
using Numbers = std::vector<double>;

Matrix turned(const Matrix& m) {
  Matrix t(m.columns, m.rows);
  for (int64_t r = 0; r < m.rows; r++)
    for (int64_t c = 0; c < m.columns; c++) t.at(c, r) = m.at(r, c);
  return t;
}

// Singular values 1, 1 - 1e-9, 1 - 2e-9, ... between two reflections.
Matrix clustered(int64_t rows, int64_t columns) {
  const auto reflection = [](int64_t n) {
    Matrix h(n, n);
    double squares = 0;
    for (int64_t i = 0; i < n; i++) squares += std::pow(normal_number("reflection", i), 2);
    for (int64_t i = 0; i < n; i++)
      for (int64_t j = 0; j < n; j++) h.at(i, j) = (i == j) - 2 * normal_number("reflection", i) * normal_number("reflection", j) / squares;
    return h;
  };
  const Matrix left = reflection(rows), right = reflection(columns);
  Matrix m(rows, columns);
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j++)
      for (int64_t k = 0; k < std::min(rows, columns); k++) m.at(i, j) += left.at(i, k) * (1 - 1e-9 * double(k)) * right.at(k, j);
  return m;
}

// Matrices behind one another in a flat buffer, what lies between them is not a number; and their norms by Jacobi.
struct Trial {
  DType dtype;
  Numbers flat;
  std::vector<MatrixBatch::Matrix> matrices;
  Numbers exact;

  void add(Matrix m, double scale) {
    for (double& v : m.values) v = (dtype == DType::f32 ? double(float(v * scale)) : v * scale) / scale;   // scale: a power of two
    exact.push_back(singular_values(m.rows >= m.columns ? m : turned(m)).front() * scale);
    flat.insert(flat.end(), 3, NAN);
    matrices.push_back({int64_t(flat.size()), m.rows, m.columns});
    for (const double v : m.values) flat.push_back(v * scale);
  }

  explicit Trial(DType dtype) : dtype(dtype) {
    const double tiny = dtype == DType::f32 ? 0x1p-140 : 0x1p-1015, huge = dtype == DType::f32 ? 0x1p120 : 0x1p1010;
    for (const auto& [rows, columns] : std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {1, 7}, {9, 1}, {5, 17}, {40, 33}, {65, 70}, {3, 200}, {140, 66}}) {
      const Matrix m = random_matrix(rows, columns);
      Matrix rank_one(rows, columns);
      for (int64_t i = 0; i < rows * columns; i++) rank_one.values[size_t(i)] = normal_number("left", i / columns) * normal_number("right", i % columns);
      for (const double scale : {1.0, tiny, huge}) add(m, scale);
      add(rank_one, 1);
      add(clustered(rows, columns), 1);
      add(Matrix(rows, columns), 1);
    }
  }

  Tensor tensor(const Numbers& values, DType type = DType::f64) const { return Tensor::from(Shape{int64_t(values.size())}, values, type, cuda); }
  Numbers bounds(double of_exact, const ProvedNorms::Search& search) const {
    const ProvedNorms norms(matrices, cuda);
    Numbers estimates = exact;
    for (double& e : estimates) e *= of_exact;
    const Tensor out = tensor(Numbers(exact.size(), NAN));
    norms.look(tensor(flat, dtype));
    norms.bound(tensor(estimates), {}, out, search);
    return out.values();
  }
  Numbers proved(double of_exact) const {
    const ProvedNorms norms(matrices, cuda);
    Numbers limits = exact;
    for (double& l : limits) l *= of_exact;
    const Tensor out = tensor(Numbers(exact.size(), NAN));
    norms.test(tensor(flat, dtype), tensor(limits), out);
    return out.values();
  }
  void check_bounds(const Numbers& bounds, double excess) const {
    for (size_t i = 0; i < exact.size(); i++) {
      CAPTURE(i);
      CHECK(bounds[i] >= exact[i] * (1 - 1e-13));   // Jacobi's own rounding
      CHECK(bounds[i] <= exact[i] * (1 + excess));
    }
  }
};

}  // namespace

TEST_CASE("proved norms: never below the truth and tight, of any shape, spectrum and size, whatever the estimate is worth") {
  for (const DType dtype : {DType::f32, DType::f64}) {
    CAPTURE(dtype);
    const Trial trial(dtype);
    for (const auto& [of_exact, tolerance] : std::vector<std::pair<double, double>>{{1 - 1e-4, 1e-3}, {1 - 1e-4, 1e-5}, {0.5, 1e-3}, {NAN, 1e-3}}) {
      CAPTURE(of_exact);
      CAPTURE(tolerance);
      trial.check_bounds(trial.bounds(of_exact, {.first = tolerance, .tolerance = tolerance}), 4.1 * tolerance);
    }
    trial.check_bounds(trial.bounds(1, {.first = 1e-9, .tolerance = 1e-3}), 1.1e-9);
    const Numbers above = trial.proved(1 + 1e-10), below = trial.proved(1 - 1e-12);
    for (size_t i = 0; i < above.size(); i++) {
      CAPTURE(i);
      CHECK(above[i] == 1);
      CHECK(below[i] == (trial.exact[i] == 0));
    }
  }
}

TEST_CASE("proved norms: the same on fibers in every schedule") {
  const Trial trial(DType::f32);
  Numbers first;
  for (const unsigned schedule : schedules) {
    fibers::schedule = schedule;
    const Numbers bounds = trial.bounds(1 - 1e-4, {.first = 1e-3, .tolerance = 1e-3});
    fibers::schedule = 0;
    trial.check_bounds(bounds, 1.1e-3);
    if (first.empty()) first = bounds;
    CHECK(bounds == first);
  }
}

TEST_CASE("proved norms: a matrix that is not finite has none, its neighbours have theirs, and what is skipped stays") {
  for (const double bad : {double(NAN), double(INFINITY)}) {
    Numbers flat(9, 1.0);
    flat[4] = bad;
    const ProvedNorms norms({{0, 2, 2}, {3, 1, 3}, {6, 1, 3}, {5, 1, 4}}, cuda);   // the last overlaps the one before
    const auto tensor = [](const Numbers& values, DType dtype) { return Tensor::from(Shape{int64_t(values.size())}, values, dtype, cuda); };
    const Tensor bounds = tensor({0, 0, 0, 7}, DType::f64), within = tensor({5, 5, 5, 5}, DType::f64);
    norms.test(tensor(flat, DType::f32), tensor({2.1, 1e300, 1.7, 1.9}, DType::f64), within);
    CHECK(within.values() == Numbers{1, 0, 0, 0});
    norms.bound(tensor({2, 1, 1.7, 2}, DType::f64), tensor({0, 0, 0, 1}, DType::f64), bounds, {});
    CHECK(bounds.values()[0] == doctest::Approx(2).epsilon(1e-9));
    CHECK(bounds.values()[1] == INFINITY);
    CHECK(bounds.values()[2] == doctest::Approx(std::sqrt(3.0)).epsilon(1e-4));
    CHECK(bounds.values()[3] == 7);
  }
}
