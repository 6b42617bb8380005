// gram_norm: bounds that are never below the truth, and how tight they are.
#include "layers/lipschitz/gram_norm.h"

#include <doctest/doctest.h>

#include "matrices.h"

namespace {

double bound(const Matrix& m, int rounds) { return gram_upper_bound(m.values.data(), m.rows, m.columns, rounds); }

// Few rows make Jacobi quick: the singular values of the transpose are the same.
double exact_norm(const Matrix& m) {
  if (m.rows >= m.columns) return singular_values(m).front();
  Matrix turned(m.columns, m.rows);
  for (int64_t r = 0; r < m.rows; r++)
    for (int64_t c = 0; c < m.columns; c++) turned.at(c, r) = m.at(r, c);
  return singular_values(turned).front();
}

int64_t drawn_size(const char* stream, int64_t i) { return 1 + int64_t(RandomStream(3, stream).words(0, uint64_t(i), 0)[0] % 64); }

}  // namespace

TEST_CASE("gram norm: never below the truth on 500 random matrices, and closer with every round") {
  for (int64_t i = 0; i < 500; i++) {
    Matrix m = random_matrix(drawn_size("rows", i), drawn_size("columns", i), str("gram.", i).c_str());
    if (i % 5 == 1)   // of low rank
      for (int64_t r = 1; r < m.rows; r++)
        for (int64_t c = 0; c < m.columns; c++) m.at(r, c) = m.at(0, c) * double(r % 3) + 1e-9 * m.at(r, c);
    if (i % 5 == 2)   // with columns of very different size
      for (int64_t c = 0; c < m.columns; c++)
        for (int64_t r = 0; r < m.rows; r++) m.at(r, c) *= std::pow(10.0, double(c % 9) - 4);
    const double scale = i % 5 != 3 ? 1 : i % 2 ? 1e-200 : 1e180;   // by which only ours is multiplied: Jacobi's squares would be lost
    CAPTURE(i);
    CAPTURE(m.rows);
    CAPTURE(m.columns);
    const double exact = exact_norm(m) * scale, self = exact * 4e-15 * 8;   // Jacobi's own rounding
    for (double& v : m.values) v *= scale;
    double before = INFINITY;
    for (const int rounds : {0, 1, 2, 4, 6, 8, 10, 14}) {
      const double b = bound(m, rounds);
      CHECK(b >= exact - self);
      CHECK(b <= before * (1 + 1e-9));
      before = b;
    }
    CHECK(before <= exact * (1 + 5e-4));
    const GramMatrix gram(m.values.data(), m.rows, m.columns);
    CHECK(gram.within(exact * (1 + 1e-9)));
    CHECK(!gram.within(exact * (1 - 1e-12) - self));
    for (const double estimate : {exact, exact * (1 - 1e-4), exact * 0.5, 0.0, double(NAN)}) {
      for (const double tolerance : {1e-3, 1e-7}) {
        const double upper = gram.upper_bound(estimate, tolerance);
        CHECK(upper >= exact - self);
        CHECK(upper <= exact * (1 + 4.1 * tolerance + 1e-8));
      }
    }
  }
}

TEST_CASE("gram norm: sums of f32 products prove a little less, and never too much") {
  double worst = 0;
  for (int64_t i = 0; i < 60; i++) {
    Matrix m = random_matrix(i % 3 ? drawn_size("rows", i) : 40, i % 3 ? 20 * drawn_size("columns", i) : 3000, str("f32.", i).c_str());
    if (i % 4 == 1)   // nearly equal singular values: the trace is many times the largest square
      for (int64_t r = 0; r < m.rows; r++)
        for (int64_t c = 0; c < m.columns; c++) m.at(r, c) = (c % m.rows == r ? 1.0 : 0.0) + 0.01 * m.at(r, c);
    std::vector<float> values(m.values.begin(), m.values.end());
    if (i % 4 == 2) for (size_t k = 0; k < values.size(); k += 3) values[k] *= 1e-25f;
    if (i % 4 == 3) for (float& v : values) v *= 1e-30f;
    m.values.assign(values.begin(), values.end());
    const double scale = i % 4 == 3 ? 1e30 : 1;   // Jacobi's squares
    Matrix raised = m;
    for (double& v : raised.values) v *= scale;
    const double exact = exact_norm(raised) / scale;
    const GramMatrix gram(values.data(), m.rows, m.columns, GramMatrix::Sums::f32);
    CHECK(!gram.within(exact * (1 - 1e-12)));
    const double upper = gram.upper_bound(exact * (1 - 1e-4), 1e-4);
    CHECK(upper >= exact * (1 - 1e-13));
    worst = std::max(worst, upper / exact);
  }
  CHECK(worst < 1.0005);
}

// By the Frobenius norm the ratios are 1.61, 1.066 and 1.0049; the row sums are a little better in the first round or two. From T = 8
// on the ratio hangs on the gap between the two largest singular values of the draw and is at most 2^(2^-9) where there is none between two.
TEST_CASE("gram norm: the ratios of a 768 x 768 Gaussian, and its proof by Cholesky") {
  const Matrix m = random_matrix(768, 768, "gaussian");
  const double exact = bound(m, 16);   // within 1e-9 by then: the ratios below say so
  const auto ratio = [&](int rounds) { return bound(m, rounds) / exact; };
  CHECK(ratio(2) > 1.5);
  CHECK(ratio(2) < 1.62);
  CHECK(ratio(4) == doctest::Approx(1.066).epsilon(0.005));
  CHECK(ratio(6) == doctest::Approx(1.0049).epsilon(0.002));
  CHECK(ratio(8) < std::exp2(1.0 / 512));
  CHECK(ratio(10) < 1 + 1e-5);
  const GramMatrix gram(m.values.data(), 768, 768);
  CHECK(gram.within(exact));
  CHECK(!gram.within(exact * (1 - 1e-7)));
}

TEST_CASE("gram norm: zero, one number, all equal singular values, numbers that are not finite") {
  CHECK(bound(Matrix(3, 5), 6) == 0);
  Matrix one(1, 1);
  one.at(0, 0) = -3;
  CHECK(bound(one, 5) == doctest::Approx(3).epsilon(1e-12));
  CHECK(bound(one, 5) >= 3);
  Matrix turn(40, 40);
  for (int i = 0; i < 40; i++) turn.at(i, (i * 7 + 3) % 40) = 0.7;
  CHECK(bound(turn, 0) == doctest::Approx(0.7 * std::sqrt(40.0)));
  CHECK(bound(turn, 1) == doctest::Approx(0.7).epsilon(1e-10));   // row sums see it at once
  const GramMatrix even(turn.values.data(), 40, 40);
  CHECK(even.within(0.7 * (1 + 1e-11)));
  CHECK(!even.within(0.7 * (1 - 1e-14)));
  CHECK(GramMatrix(Matrix(4, 4).values.data(), 4, 4).within(0));
  for (const float tiny : {1e-36f, 1e-40f, 1e38f}) {
    const std::vector<float> w{tiny, 0, 0, tiny / 2};
    const GramMatrix gram(w.data(), 2, 2, GramMatrix::Sums::f32);
    CHECK(!gram.within(double(tiny) * (1 - 1e-9)));
    CHECK(gram.upper_bound(0, 1e-6) == doctest::Approx(double(tiny)).epsilon(1e-5));
  }
  for (const double bad : {double(NAN), double(INFINITY)}) {
    turn.at(3, 3) = bad;
    CHECK(bound(turn, 4) == INFINITY);
    CHECK(!GramMatrix(turn.values.data(), 40, 40).within(1e300));
    CHECK(GramMatrix(turn.values.data(), 40, 40).upper_bound(1, 1e-3) == INFINITY);
  }
}
