// band_matrix.cpp: Cholesky factorisation inside a band.
#include "layers/lipschitz/band_matrix.h"

#include <algorithm>
#include <cmath>

#include "engine/rounding.h"
#include "layers/lipschitz/row_products.h"
#include "layers/lipschitz/singular_value.h"

using rounding::gamma, rounding::u;

namespace {

double dot(const double* x, const double* y, int64_t n) {
  double s = 0;
#pragma omp simd reduction(+ : s)
  for (int64_t i = 0; i < n; i++) s += x[i] * y[i];
  return s;
}

}  // namespace

BandMatrix::BandMatrix(int64_t size, int64_t band)
    : size_(size), band_(std::min(band, size - 1)), left_(band_ + block), lead_(left_ + block - 1), values_(size * (lead_ + 1), 0.0) {}

// A = limit I - G, shifted by -e. If its factorisation R^T R runs to its end, then A + E = R^T R >= 0 with |E| <= gamma(q) |R|^T |R|, number
// by number, where no sum has more than q terms (Higham, theorem 10.3). Column j of R has the length sqrt(a_jj) at most, but for a factor
// 1 / (1 - gamma(q)), and a row of |R|^T |R| has at most 2 band + 1 numbers, each at most the product of two such lengths: the norm of E is
// at most gamma(q) (2 band + 1) max a_jj / (1 - gamma(q)). max a_jj <= limit, as the diagonal of G is not negative. Beside it: u limit for
// the shift, and `error`. e is the sum of these, taken twice; 1e-290 is for what underflows.
bool BandMatrix::below(double limit, double error) const {
  if (!std::isfinite(limit)) return false;
  const int64_t q = band_ + 2 * block + 2;
  const double e = 2 * (gamma(q) * double(2 * band_ + 1) * limit + error + 4 * u * limit) + 1e-290;
  std::vector<double> a(values_.size());
  for (size_t i = 0; i < a.size(); i++) a[i] = -values_[i];
  const auto at = [&](int64_t i) { return a.data() + i * lead_ + left_; };
  for (int64_t i = 0; i < size_; i++) at(i)[i] += limit - e;
  for (int64_t j0 = 0; j0 < size_; j0 += block) {
    const int64_t j1 = std::min(size_, j0 + block), last = std::min(size_, j1 + band_);
    for (int64_t i0 = j0; i0 < last; i0 += block) {
      const int64_t i1 = std::min(last, i0 + block), from = std::max<int64_t>(0, i0 - band_);
      if (from < j0) RowProducts{at(i0) + from, at(j0) + from, j0 - from, lead_, -1, at(i0) + j0, lead_}.run(i1 - i0, j1 - j0);
      for (int64_t i = i0; i < i1; i++)
        for (int64_t j = j0; j <= std::min(i, j1 - 1); j++) {
          const double s = at(i)[j] - dot(at(i) + j0, at(j) + j0, j - j0);
          if (i == j && !(s > 0)) return false;
          at(i)[j] = i == j ? std::sqrt(s) : s / at(j)[j];
        }
    }
  }
  return true;
}

double BandMatrix::largest_eigenvalue(int most_steps) const {
  return ::largest_eigenvalue(size_, most_steps, [&](const std::vector<double>& x) {
    std::vector<double> y(size_, 0.0);
    for (int64_t i = 0; i < size_; i++) {
      const int64_t from = std::max<int64_t>(0, i - band_);
      const double* g = values_.data() + i * lead_ + left_;
#pragma GCC ivdep
      for (int64_t j = from; j < i; j++) y[j] += g[j] * x[i];
      y[i] += dot(g + from, x.data() + from, i + 1 - from);
    }
    return y;
  });
}
