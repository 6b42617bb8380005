// singular_value.cpp: Lanczos with full reorthogonalisation and a Sturm bisection of its tridiagonal matrix.
#include "layers/lipschitz/singular_value.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "engine/random.h"

namespace {

using Vector = std::vector<double>;

double dot(const Vector& a, const Vector& b) {
  double s = 0;
#pragma omp simd reduction(+ : s)
  for (size_t i = 0; i < a.size(); i++) s += a[i] * b[i];
  return s;
}

// y = A^T A x, or A A^T x if the rows are fewer.
Vector gram_times(const double* a, int64_t rows, int64_t columns, bool wide, const Vector& x) {
  Vector y(x.size(), 0.0);
  if (!wide) {
    for (int64_t r = 0; r < rows; r++) {
      const double* row = a + r * columns;
      double s = 0;
#pragma omp simd reduction(+ : s)
      for (int64_t c = 0; c < columns; c++) s += row[c] * x[c];
      for (int64_t c = 0; c < columns; c++) y[c] += s * row[c];
    }
    return y;
  }
  Vector t(columns, 0.0);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < columns; c++) t[c] += x[r] * a[r * columns + c];
  for (int64_t r = 0; r < rows; r++) {
    const double* row = a + r * columns;
    double s = 0;
#pragma omp simd reduction(+ : s)
    for (int64_t c = 0; c < columns; c++) s += row[c] * t[c];
    y[r] = s;
  }
  return y;
}

// The largest eigenvalue of the symmetric tridiagonal matrix with this diagonal and off-diagonal.
double largest_eigenvalue(const Vector& diagonal, const Vector& off) {
  double high = 0;
  for (size_t i = 0; i < diagonal.size(); i++)
    high = std::max(high, diagonal[i] + (i ? std::abs(off[i - 1]) : 0) + (i < off.size() ? std::abs(off[i]) : 0));
  double low = 0;
  for (int i = 0; i < 200 && low < high; i++) {
    const double middle = 0.5 * (low + high);
    if (middle == low || middle == high) break;
    bool above = false;   // does an eigenvalue lie above middle? A positive pivot of T - middle I says so.
    double pivot = 1;
    for (size_t j = 0; j < diagonal.size() && !above; j++) {
      pivot = diagonal[j] - middle - (j ? off[j - 1] * off[j - 1] / pivot : 0);
      if (pivot == 0) pivot = -1e-300;
      above = pivot > 0;
    }
    (above ? low : high) = middle;
  }
  return 0.5 * (low + high);
}

}  // namespace

double largest_eigenvalue(int64_t n, int most_steps, const std::function<Vector(const Vector&)>& times) {
  if (n == 0) return 0;
  const int steps = int(std::min<int64_t>(n, most_steps));
  const RandomStream stream(0, "lanczos");
  Vector q(n);
  for (int64_t i = 0; i < n; i++) q[i] = normal_from(stream.words(0, i, 0)[0], stream.words(0, i, 0)[1]);
  std::vector<Vector> basis;
  Vector diagonal, off;
  double norm = std::sqrt(dot(q, q));
  for (int k = 0; k < steps && norm > 0; k++) {
    for (double& v : q) v /= norm;
    basis.push_back(q);
    Vector y = times(q);
    diagonal.push_back(dot(y, q));
    for (int pass = 0; pass < 2; pass++)   // twice is enough
      for (const Vector& b : basis) {
        const double along = dot(y, b);
        for (int64_t i = 0; i < n; i++) y[i] -= along * b[i];
      }
    norm = std::sqrt(dot(y, y));
    if (norm <= 1e-14 * std::abs(diagonal[0])) break;
    if (k + 1 < steps) off.push_back(norm);
    q = std::move(y);
  }
  return largest_eigenvalue(diagonal, off);
}

double largest_singular_value(const double* a, int64_t rows, int64_t columns) {
  const bool wide = rows < columns;
  return std::sqrt(largest_eigenvalue(std::min(rows, columns), 120, [&](const Vector& x) { return gram_times(a, rows, columns, wide, x); }));
}
