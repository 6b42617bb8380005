// gram_norm.cpp: Gram iteration, and positive definiteness by Cholesky.
//
// Rounding: rounding.h, norm_proof.h. W is divided by a power of two so that its largest number lies in [0.5, 1): exact, and no square that matters underflows.
#include "layers/lipschitz/gram_norm.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/small_gemm.h"
#include "engine/rounding.h"
#include "layers/lipschitz/singular_value.h"

using rounding::gamma, rounding::u;

namespace {

// W or W^T, whichever has fewer columns, divided by `scale`: column by column the rows a_i of the text above. Padded with columns of zeros.
template <class T> struct Columns {
  int64_t count = 0, length = 0, stride = 0;
  double scale = 0;   // a power of two; 0: W is zero; not finite: W is not
  std::vector<T> values;   // [length, stride]
};

// T: what the numbers are kept in. f32 holds f32 exactly, but for what is 2^-126 times as small as the largest.
template <class T, class From> Columns<T> fewer_columns(const From* w, int64_t rows, int64_t columns) {
  Columns<T> a{std::min(rows, columns), std::max(rows, columns)};
  a.stride = (a.count + lanes<T> - 1) / lanes<T> * lanes<T>;
  From most = 0, zero = 0;   // zero: but for numbers that are not finite
#pragma omp simd reduction(max : most) reduction(+ : zero)
  for (int64_t i = 0; i < rows * columns; i++) {
    const From size = std::abs(w[i]);
    most = size > most ? size : most;
    zero += w[i] * 0;
  }
  const bool finite = zero == 0;
  const double largest = double(most);
  if (!finite) a.scale = std::numeric_limits<double>::infinity();
  if (!finite || largest == 0) return a;
  int exponent;
  std::frexp(largest, &exponent);
  a.scale = std::ldexp(1.0, std::clamp(exponent, sizeof(T) == 4 ? -126 : -1000, sizeof(T) == 4 ? 126 : 1000));
  const T unscale = T(1 / a.scale);   // a power of two as well
  a.values.resize(a.length * a.stride);
  if (rows > columns) {
    for (int64_t r = 0; r < rows; r++) {
      T* to = a.values.data() + r * a.stride;
      const From* from = w + r * columns;
#pragma GCC ivdep
      for (int64_t c = 0; c < columns; c++) to[c] = T(from[c]) * unscale;
    }
    return a;
  }
  constexpr int64_t tile = 16;   // of the transposition
  for (int64_t r0 = 0; r0 < rows; r0 += tile)
    for (int64_t c0 = 0; c0 < columns; c0 += tile)
      for (int64_t c = c0; c < std::min(c0 + tile, columns); c++)
        for (int64_t r = r0; r < std::min(r0 + tile, rows); r++) a.values[c * a.stride + r] = T(w[r * columns + c]) * unscale;
  return a;
}

constexpr int64_t block = 48;
constexpr int lanczos_steps = 32;

// The lower triangle of A A^T, [count, stride], in blocks; some numbers above the diagonal are written too. Sums of f32 products run over
// `f32_run` of them and are then added in f64.
constexpr int64_t f32_run = 64;

std::vector<double> gram(const Columns<double>& a) {
  constexpr int64_t run = 128;
  std::vector<double> g(a.count * a.stride, 0.0);
  for (int64_t k = 0; k < a.length; k += run)
    for (int64_t i = 0; i < a.count; i += block)
      for (int64_t j = 0; j <= i; j += block) {
        double* c = g.data() + i * a.stride + j;
        const double* at = a.values.data() + k * a.stride;
        small_gemm<true, double>({int(std::min(block, a.count - i)), int(std::min(block, a.stride - j)), int(std::min(run, a.length - k)), at + i, a.stride,
                                  at + j, a.stride, c, c, a.stride});
      }
  return g;
}

std::vector<double> gram(const Columns<float>& a) {
  std::vector<double> g(a.count * a.stride, 0.0);
  std::vector<float> sums(block * block);
  for (int64_t k = 0; k < a.length; k += f32_run)
    for (int64_t i = 0; i < a.count; i += block)
      for (int64_t j = 0; j <= i; j += block) {
        const int rows = int(std::min(block, a.count - i)), columns = int(std::min(block, a.stride - j));
        const float* at = a.values.data() + k * a.stride;
        small_gemm<true, float>({rows, columns, int(std::min(f32_run, a.length - k)), at + i, a.stride, at + j, a.stride, nullptr, sums.data(), block});
        for (int r = 0; r < rows; r++) {
          double* to = g.data() + (i + r) * a.stride + j;
          const float* from = sums.data() + r * block;
          for (int c = 0; c < columns; c++) to[c] += double(from[c]);
        }
      }
  return g;
}

void mirror(Columns<double>& g) {
  for (int64_t i = 0; i < g.count; i++)
    for (int64_t j = 0; j < i; j++) g.values[j * g.stride + i] = g.values[i * g.stride + j];
  for (int64_t i = 0; i < g.count; i++)
    for (int64_t j = g.count; j < g.stride; j++) g.values[i * g.stride + j] = 0;
}

double frobenius(const std::vector<double>& g) {
  double s = 0;
#pragma omp simd reduction(+ : s)
  for (size_t i = 0; i < g.size(); i++) s += g[i] * g[i];
  return std::sqrt(s);
}

// The largest sum of absolute values of a row; it bounds the norm of a symmetric matrix.
double largest_row_sum(const Columns<double>& g) {
  double largest = 0;
  for (int64_t i = 0; i < g.count; i++) {
    double s = 0;
    for (int64_t j = 0; j < g.count; j++) s += std::abs(g.values[i * g.stride + j]);
    largest = std::max(largest, s);
  }
  return largest;
}

// Whether the Cholesky factorisation of the lower triangle of a [n, stride] runs to its end: every pivot is positive. Panel by panel: the panel's
// columns lie as rows, so that eliminating them and taking them from the rest are both products of rows. The factor itself is not kept.
bool factorizes(std::vector<double>& a, int64_t n, int64_t stride) {
  constexpr int64_t panel = 48;
  std::vector<double> columns(panel * stride), negative(columns);
  for (int64_t p0 = 0; p0 < n; p0 += panel) {
    const int64_t width = std::min(panel, n - p0);
    for (int64_t c = 0; c < width; c++)
      for (int64_t r = p0 + c; r < n; r++) columns[c * stride + r] = a[r * stride + p0 + c];
    for (int64_t c = 0; c < width; c++) {
      double* column = columns.data() + c * stride;
      const double pivot = column[p0 + c];
      if (!(pivot > 0)) return false;
      const double root = std::sqrt(pivot);
      for (int64_t r = p0 + c; r < n; r++) column[r] /= root;
      for (int64_t d = c + 1; d < width; d++) {
        const double factor = column[p0 + d];
        double* other = columns.data() + d * stride;
#pragma GCC ivdep
        for (int64_t r = p0 + d; r < n; r++) other[r] -= factor * column[r];
      }
    }
    const int64_t rest = p0 + width;
    for (int64_t i = 0; i < width * stride; i++) negative[i] = -columns[i];
    for (int64_t i = rest; i < n; i += block)
      for (int64_t j = rest; j < std::min(i + block, n); j += block) {
        const int64_t end = std::min(j + block, n), whole = (end - j + lanes<double> - 1) / lanes<double> * lanes<double>;
        double* c = a.data() + i * stride + j;
        small_gemm<true, double>({int(std::min(block, n - i)), int(std::min(whole, stride - j)), int(width), negative.data() + i, stride, columns.data() + j,
                                  stride, c, c, stride});
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
  Columns<double> g = fewer_columns<double>(w, rows, columns);
  if (g.scale == 0) return 0;
  if (!std::isfinite(g.scale)) return g.scale;
  double log_norm = 0, power = 1, slack = 0;   // |W / scale| <= exp(log_norm + slack) |g|^power
  for (int t = 0; t < rounds; t++) {
    const double n = frobenius(g.values);
    for (double& v : g.values) v /= n;
    log_norm += power * std::log(n);
    const int64_t length = g.length;
    g.values = gram(g);
    g.length = g.count;
    mirror(g);
    power *= 0.5;
    slack += 2 * power * (gamma(length) + 4 * u) * double(g.count);
  }
  const double last = std::min(frobenius(g.values) * (1 + gamma(int64_t(g.values.size()))),
                               rounds > 0 ? largest_row_sum(g) * (1 + gamma(g.count)) : std::numeric_limits<double>::infinity());
  return g.scale * std::exp(log_norm + slack + power * std::log(last)) * (1 + 1e-13);   // 1e-13: the logarithms' and exponential's own
}

// A sum of f32 products is off by gamma_32(64) of the absolute ones within a run and by gamma(runs) between them; 1e-30 stands for what f32
// cannot hold beside numbers near 1.
template <class T> GramMatrix::GramMatrix(const T* w, int64_t rows, int64_t columns, Sums sums) {
  const auto take = [&](const auto& a, double error) {
    stride_ = a.stride;
    if (!a.values.empty()) values_ = gram(a);
    double trace = 0;
    for (int64_t i = 0; i < a.count && !values_.empty(); i++) trace += values_[i * stride_ + i];
    gram_ = norm_proof::counted(a.count, a.scale, trace, error);
  };
  const int64_t depth = std::max(rows, columns);
  const Columns<float> single = std::is_same_v<T, float> && sums == Sums::f32 ? fewer_columns<float>(w, rows, columns) : Columns<float>();
  if (single.scale >= 0x1p-100)   // smaller ones would leave squares that f32 cannot hold
    take(single, gamma(std::min(depth, f32_run), 0x1p-24) * 1.0001 + gamma(depth / f32_run + 1) + 1e-30);
  else
    take(fewer_columns<double>(w, rows, columns), gamma(depth));
}

GramMatrix::GramMatrix(const std::vector<double>& values, int64_t size, double error)
    : gram_{size, 1, 0, error}, stride_((size + lanes<double> - 1) / lanes<double> * lanes<double>), values_(size * stride_, 0.0) {
  for (int64_t i = 0; i < size; i++) {
    std::copy_n(values.data() + i * size, i + 1, values_.data() + i * stride_);
    gram_.trace += values[i * size + i];
  }
  gram_.trace = (gram_.trace + double(size) * error) * (1 + gamma(size) * 2);
}

bool GramMatrix::within(double limit) const {
  const auto [size, scale, trace, error] = gram_;
  if (!std::isfinite(scale) || !(limit >= 0)) return false;
  if (scale == 0) return true;
  const double square = (limit / scale) * (limit / scale);
  if (norm_proof::proved_by_trace(gram_, square)) return true;
  const double diagonal = square - norm_proof::margin(gram_, square);
  std::vector<double> a(values_.size());
  for (int64_t i = 0; i < size; i++)
    for (int64_t j = 0; j <= i; j++) a[i * stride_ + j] = (i == j ? diagonal : 0.0) - values_[i * stride_ + j];
  return factorizes(a, size, stride_);
}

double GramMatrix::estimate(int steps) const {
  const auto times = [&](const std::vector<double>& x) {   // by the lower triangle alone
    std::vector<double> y(x.size(), 0.0);
    for (int64_t i = 0; i < gram_.size; i++) {
      const double* row = values_.data() + i * stride_;
      const double xi = x[i];
      double sum = row[i] * xi;
#pragma omp simd reduction(+ : sum)
      for (int64_t j = 0; j < i; j++) sum += row[j] * x[j];
#pragma GCC ivdep
      for (int64_t j = 0; j < i; j++) y[j] += row[j] * xi;
      y[i] += sum;
    }
    return y;
  };
  return values_.empty() ? gram_.scale : gram_.scale * std::sqrt(std::max(0.0, largest_eigenvalue(gram_.size, steps, times)));
}

// A step of Lanczos costs a twentieth of a proof: too dear for an estimate that is good, cheap for one that is not.
double GramMatrix::upper_bound(double estimate, double tolerance, double first) const {
  if (!std::isfinite(gram_.scale) || gram_.scale == 0) return gram_.scale;
  return norm_proof::small_limit(gram_, estimate, first, tolerance, [&](double limit) { return within(limit); }, [&] { return this->estimate(lanczos_steps); });
}

template double gram_upper_bound(const float*, int64_t, int64_t, int);
template double gram_upper_bound(const double*, int64_t, int64_t, int);
template GramMatrix::GramMatrix(const float*, int64_t, int64_t, Sums);
template GramMatrix::GramMatrix(const double*, int64_t, int64_t, Sums);
