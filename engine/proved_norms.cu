// proved_norms.cu: Gram matrices by products, proofs by a Cholesky factorisation in panels. Matrices of the factorisation lie column by column.
#include "engine/proved_norms.h"

#include <algorithm>

#include "engine/blas.h"
#include "engine/map.h"
#include "engine/rounding.h"

namespace {

constexpr int panel = 32;
constexpr double tolerance = 1e-5;

HD bool finite(double x) { return x - x == 0; }
HD double clamped(double x, double low, double high) { return x < low ? low : x > high ? high : x; }

// What all threads of a block know of its matrix.
struct Proof {
  const double* gram;
  double* a;        // scratch: the matrix that is factorised, lower triangle, column after column
  int64_t n;
  double trace;     // of the true Gram matrix, from above: |A|_F^2
  double error;     // the norm of what it differs by, at most
};

DEVICE Proof start(const ProvedNorms::Row& row, const double* gram, double* scratch) {
  Proof p{gram + row.gram, scratch + row.gram, row.size, 0, 0};
  for (int64_t i = 0; i < p.n; i++) p.trace += p.gram[i * p.n + i];
  const double relative = rounding::gamma(row.depth);
  p.trace *= 1 + 2 * (relative + rounding::gamma(p.n));
  p.error = relative * p.trace;
  return p;
}

// Whether every pivot is positive: panel by panel, then what it takes from the rest. All threads return the same.
DEVICE bool factorizes(const Proof& p) {
  const int64_t n = p.n, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  for (int64_t p0 = 0; p0 < n; p0 += panel) {
    const int64_t rest = p0 + panel < n ? p0 + panel : n;
    for (int64_t c = p0; c < rest; c++) {
      double* column = p.a + c * n;
      const double pivot = column[c];
      __syncthreads();
      if (!(pivot > 0)) return false;
      const double root = sqrt(pivot);
      for (int64_t r = c + threadIdx.x; r < n; r += blockDim.x) column[r] /= root;
      __syncthreads();
      for (int64_t d = c + 1; d < rest; d++)
        for (int64_t r = d + threadIdx.x; r < n; r += blockDim.x) p.a[d * n + r] -= column[d] * column[r];
      __syncthreads();
    }
    for (int64_t j = rest + warp; j < n; j += warps)
      for (int64_t i = j + lane_id(); i < n; i += 32) {
        double sum = 0;
        for (int64_t c = p0; c < rest; c++) sum += p.a[c * n + i] * p.a[c * n + j];
        p.a[j * n + i] -= sum;
      }
    __syncthreads();
  }
  return true;
}

// If the factorisation of M [n, n] runs to its end, the exact M has no eigenvalue below -gamma(n + 1) / (1 - gamma(n + 1)) trace(M) (Higham, theorem
// 10.3; Rump 2006), in any order of sums. Here M = (limit^2 - e) I - G with G off by at most `error` and the subtraction by u limit^2.
DEVICE bool within(const Proof& p, double limit) {
  const double square = limit * limit;
  if (p.trace * (1 + 4 * rounding::u) <= square) return true;
  if (!finite(p.trace) || !(square >= 1e-200)) return false;   // smaller squares lose their digits
  const double e = 2 * (rounding::gamma(p.n + 1) * double(p.n) * square + 4 * rounding::u * square) + p.error * (1 + 1e-6) + 1e-300;
  __syncthreads();
  for (int64_t i = threadIdx.x; i < p.n * p.n; i += blockDim.x) p.a[i] = (i % (p.n + 1) == 0 ? square - e : 0.0) - p.gram[i];
  __syncthreads();
  return factorizes(p);
}

KERNEL test_kernel(const ProvedNorms::Row* rows, const double* gram, double* scratch, const double* limits, double* proved) {
  const Proof p = start(rows[blockIdx.x], gram, scratch);
  const bool is = within(p, limits[blockIdx.x]);
  if (threadIdx.x == 0) proved[blockIdx.x] = is;
}

KERNEL bound_kernel(const ProvedNorms::Row* rows, const double* gram, double* scratch, const double* estimates, const double* skip, double* bounds) {
  if (skip && skip[blockIdx.x] != 0) return;
  const Proof p = start(rows[blockIdx.x], gram, scratch);
  const double estimate = estimates[blockIdx.x], largest = sqrt(p.trace) * (1 + 8 * rounding::u) + 1e-99, close = estimate * (1 + 1e-10);
  double high = largest;
  if (finite(largest) && finite(close) && within(p, close)) {
    high = close;
  } else if (finite(largest) && p.trace > 1e-200) {
    const double lost = 4 * p.error / p.trace, least = largest / sqrt(double(p.n)) * (1 - 1e-9) * sqrt(1 - (lost < 0.5 ? lost : 0.5));
    double low = clamped(finite(estimate) ? estimate : 0, least, largest);
    for (double above = tolerance; above < 1 && low * (1 + above) < largest; above *= 4) {
      if (!within(p, low * (1 + above))) continue;
      high = low * (1 + above);
      if (above > tolerance) low *= 1 + above / 4;   // which failed
      break;
    }
    while (high > low * (1 + 3.001 * tolerance)) {
      const double middle = 0.5 * (low + high);
      (within(p, middle) ? high : low) = middle;
    }
  }
  if (threadIdx.x == 0) bounds[blockIdx.x] = high;
}

}  // namespace

ProvedNorms::ProvedNorms(const std::vector<MatrixBatch::Matrix>& matrices, Device device) : matrices_(matrices) {
  int64_t numbers = 0;
  for (const auto& m : matrices) {
    const int64_t size = std::min(m.rows, m.columns);
    places_.push_back({size, std::max(m.rows, m.columns), numbers});
    numbers += size * size;
  }
  table_ = table_of(places_, device);
  gram_ = Tensor::empty({numbers}, DType::f64, device);
  scratch_ = Tensor::empty({numbers}, DType::f64, device);
}

void ProvedNorms::look(const Tensor& flat) const {
  for (size_t i = 0; i < matrices_.size(); i++) {
    const auto& m = matrices_[i];
    const auto [size, depth, at] = places_[i];
    const bool wide = m.rows <= m.columns;
    const Tensor a = flat.slice(m.offset, m.rows * m.columns).view({m.rows, m.columns}).to(DType::f64);
    gemm({.transpose_a = !wide, .transpose_b = wide, .m = size, .n = size, .k = depth}, a, a, gram_.slice(at, size * size).view({size, size}));
  }
}

void ProvedNorms::test(const Tensor& flat, const Tensor& limits, const Tensor& within) const {
  look(flat);
  if (matrices_.empty()) return;
  launch({dim3(unsigned(matrices_.size())), dim3(256)}, test_kernel, reinterpret_cast<const Row*>(table_.raw()), gram_.data<double>(), scratch_.data<double>(),
         limits.data<double>(), within.data<double>());
}

void ProvedNorms::bound(const Tensor& estimates, const Tensor& skip, const Tensor& bounds) const {
  if (matrices_.empty()) return;
  launch({dim3(unsigned(matrices_.size())), dim3(256)}, bound_kernel, reinterpret_cast<const Row*>(table_.raw()), gram_.data<double>(), scratch_.data<double>(),
         estimates.data<double>(), skip ? skip.data<double>() : nullptr, bounds.data<double>());
}
