// gram_norm.cpp: Gram iteration, and positive definiteness by Cholesky.
//
// Rounding (rounding.h). A computed A A^T with inner dimension k differs from the exact one by a matrix of norm
// <= gamma(k) | |A| |A|^T |_2 <= gamma(k) |A|_F^2.
// W is divided by a power of two so that its largest number lies in [0.5, 1): exact, and no square that matters underflows.
#include "layers/lipschitz/gram_norm.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "layers/lipschitz/rounding.h"
#include "layers/lipschitz/row_products.h"

using rounding::gamma, rounding::u;

namespace {

// The rows of W or of W^T, the fewer, divided by `scale`.
struct Rows {
  int64_t count = 0, length = 0;
  double scale = 0;   // a power of two; 0: W is zero; not finite: W is not
  std::vector<double> values;
};

template <class T> Rows fewer_rows(const T* w, int64_t rows, int64_t columns) {
  Rows a{std::min(rows, columns), std::max(rows, columns)};
  double largest = 0;
  bool finite = true;
  for (int64_t i = 0; i < rows * columns; i++) {
    finite &= std::isfinite(w[i]);
    largest = std::max(largest, std::abs(double(w[i])));
  }
  if (!finite) a.scale = std::numeric_limits<double>::infinity();
  if (!finite || largest == 0) return a;
  int exponent;
  std::frexp(largest, &exponent);
  a.scale = std::ldexp(1.0, std::clamp(exponent, -1000, 1000));
  a.values.resize(rows * columns);
  constexpr int64_t tile = 32;   // of the transposition
  for (int64_t r0 = 0; r0 < rows; r0 += tile)
    for (int64_t c0 = 0; c0 < columns; c0 += tile)
      for (int64_t r = r0; r < std::min(r0 + tile, rows); r++)
        for (int64_t c = c0; c < std::min(c0 + tile, columns); c++)
          a.values[rows <= columns ? r * columns + c : c * rows + r] = double(w[r * columns + c]) / a.scale;
  return a;
}

// The lower triangle of A A^T, in blocks; some numbers above the diagonal are written too.
std::vector<double> gram(const double* a, int64_t count, int64_t length) {
  constexpr int64_t block = 48;
  std::vector<double> g(count * count, 0.0);
  for (int64_t j = 0; j < count; j += block)
    RowProducts{a + j * length, a + j * length, length, length, 1, g.data() + j * count + j, count}
        .run(count - j, std::min(block, count - j));
  return g;
}

void mirror(std::vector<double>& g, int64_t n) {
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < i; j++) g[j * n + i] = g[i * n + j];
}

double frobenius(const std::vector<double>& g) {
  double s = 0;
#pragma omp simd reduction(+ : s)
  for (size_t i = 0; i < g.size(); i++) s += g[i] * g[i];
  return std::sqrt(s);
}

// The largest sum of absolute values of a row; it bounds the norm of a symmetric matrix.
double largest_row_sum(const std::vector<double>& g, int64_t n) {
  double largest = 0;
  for (int64_t i = 0; i < n; i++) {
    double s = 0;
    for (int64_t j = 0; j < n; j++) s += std::abs(g[i * n + j]);
    largest = std::max(largest, s);
  }
  return largest;
}

// Cholesky of the lower triangle of a [n, n], in place, by blocks of columns. False if a pivot is not positive.
bool factorize(std::vector<double>& a, int64_t n) {
  constexpr int64_t block = 48;
  for (int64_t j0 = 0; j0 < n; j0 += block) {
    const int64_t j1 = std::min(n, j0 + block);
    RowProducts{a.data() + j0 * n, a.data() + j0 * n, j0, n, -1, a.data() + j0 * n + j0, n}.run(n - j0, j1 - j0);
    for (int64_t i = j0; i < n; i++)
      for (int64_t j = j0; j <= std::min(i, j1 - 1); j++) {
        const double *x = a.data() + i * n, *y = a.data() + j * n;
        double products = 0;
#pragma omp simd reduction(+ : products)
        for (int64_t k = j0; k < j; k++) products += x[k] * y[k];
        const double s = x[j] - products;
        if (i == j && !(s > 0)) return false;
        a[i * n + j] = i == j ? std::sqrt(s) : s / a[j * n + j];
      }
  }
  return true;
}

}  // namespace

// Each round, with n = the computed |G|_F: G/n is rounded (|.| changes by at most u |G|_F / n), its Gram matrix by at most gamma(k) of
// |G/n|_F^2 = 1 (nearly). So the exact largest eigenvalue is at most that of the computed matrix plus delta = gamma(k) + 4 u. It is itself
// at least 1 / size, because the trace is 1 (nearly): the relative error is at most 2 delta size, which is added to the logarithm as it
// stands, halved as often as that eigenvalue's logarithm is. What n is does not matter, as long as it is near |G|_F. The last norm is a
// sum of size^2 squares, or of size numbers.
template <class T> double gram_upper_bound(const T* w, int64_t rows, int64_t columns, int rounds) {
  Rows a = fewer_rows(w, rows, columns);
  if (a.scale == 0) return 0;
  if (!std::isfinite(a.scale)) return a.scale;
  std::vector<double> g = std::move(a.values);
  int64_t length = a.length;
  double log_norm = 0, power = 1, slack = 0;   // |W / scale| <= exp(log_norm + slack) |g|^power
  for (int t = 0; t < rounds; t++) {
    const double n = frobenius(g);
    for (double& v : g) v /= n;
    log_norm += power * std::log(n);
    g = gram(g.data(), a.count, length);
    mirror(g, a.count);
    power *= 0.5;
    slack += 2 * power * (gamma(length) + 4 * u) * double(a.count);
    length = a.count;
  }
  const double last = std::min(frobenius(g) * (1 + gamma(int64_t(g.size()))),
                               rounds > 0 ? largest_row_sum(g, a.count) * (1 + gamma(a.count)) : std::numeric_limits<double>::infinity());
  return a.scale * std::exp(log_norm + slack + power * std::log(last)) * (1 + 1e-13);   // 1e-13: the logarithms' and exponential's own
}

template <class T> GramMatrix::GramMatrix(const T* w, int64_t rows, int64_t columns) {
  const Rows a = fewer_rows(w, rows, columns);
  size_ = a.count, scale_ = a.scale;
  if (a.values.empty()) return;
  values_ = gram(a.values.data(), size_, a.length);
  for (int64_t i = 0; i < size_; i++) trace_ += values_[i * size_ + i];
  trace_ *= 1 + gamma(a.length + size_) * 2;
  error_ = gamma(a.length) * trace_;
}

GramMatrix::GramMatrix(std::vector<double> values, int64_t size, double error) : size_(size), error_(error), values_(std::move(values)) {
  for (int64_t i = 0; i < size; i++) trace_ += values_[i * size + i];
  trace_ = (trace_ + double(size) * error) * (1 + gamma(size) * 2);
}

// If the factorisation of A [m, m] runs to its end, the exact A has no eigenvalue below -gamma(m + 1) / (1 - gamma(m + 1)) trace(A)
// (Higham, theorem 10.3 and |R_j|^2 <= a_jj / (1 - gamma); Rump 2006). Here A = (limit^2 - e) I - G with G off by at most
// `error` and the subtraction by u limit^2; e is the sum of all these, taken twice. So success means limit^2 I - W W^T >= 0.
bool GramMatrix::within(double limit) const {
  if (!std::isfinite(scale_) || !(limit >= 0)) return false;
  if (scale_ == 0) return true;
  const double square = (limit / scale_) * (limit / scale_);
  if (trace_ * (1 + 4 * u) <= square) return true;
  const double e = 2 * (gamma(size_ + 1) * double(size_) * square + error_ + 4 * u * square) + 1e-300;
  std::vector<double> a(values_.size());
  for (int64_t i = 0; i < size_; i++)
    for (int64_t j = 0; j <= i; j++) a[i * size_ + j] = (i == j ? square - e : 0.0) - values_[i * size_ + j];
  return factorize(a, size_);
}

double GramMatrix::upper_bound(double estimate) const {
  if (!std::isfinite(scale_)) return scale_;
  if (scale_ == 0) return 0;
  const double largest = scale_ * std::sqrt(trace_) * (1 + 8 * u);   // the Frobenius norm
  const double least = largest / std::sqrt(double(size_)) * (1 - 1e-9);
  double low = std::clamp(std::isfinite(estimate) ? estimate : 0.0, least, largest), high = largest;
  for (double above = 1e-10; above < 1 && low * (1 + above) < largest; above *= 8) {
    if (!within(low * (1 + above))) continue;
    high = low * (1 + above);
    if (above > 1e-10) low *= 1 + above / 8;   // which failed
    break;
  }
  for (int i = 0; i < 4 && high > low * (1 + 1e-7); i++) {
    const double middle = 0.5 * (low + high);
    (within(middle) ? high : low) = middle;
  }
  return high;
}

template double gram_upper_bound(const float*, int64_t, int64_t, int);
template double gram_upper_bound(const double*, int64_t, int64_t, int);
template GramMatrix::GramMatrix(const float*, int64_t, int64_t);
template GramMatrix::GramMatrix(const double*, int64_t, int64_t);
