// blas_cpu.cpp: the only file that knows oneDNN. f32 by its sgemm, f64 by our own tiles (gradient checks and certificates), bf16 through f32.
#include <dnnl.h>

#include <algorithm>
#include <vector>

#include "engine/blas.h"
#include "engine/column_sums.h"
#include "engine/profile.h"
#include "engine/small_gemm.h"

namespace {
constexpr int gemm_rows = 48, gemm_columns = 64;   // of a tile of c in f64
}  // namespace

void gemm(const Gemm& g, const float* a, const float* b, float* c) {
  if (g.m == 0 || g.n == 0) return;
  if (g.k == 0) {   // oneDNN refuses a leading dimension of 0
    for (int64_t i = 0; i < g.m * g.n; i++) c[i] = g.beta == 0 ? 0 : float(g.beta) * c[i];
    return;
  }
  const dnnl_status_t status = dnnl_sgemm(g.transpose_a ? 'T' : 'N', g.transpose_b ? 'T' : 'N', g.m, g.n, g.k, float(g.alpha), a,
                                          g.transpose_a ? g.m : g.k, b, g.transpose_b ? g.k : g.n, float(g.beta), c, g.n);
  check(status == dnnl_success, "[gemm] oneDNN answered ", int(status), " for ", g.m, " x ", g.n, " x ", g.k);
}

namespace {

// Rows [first, first + rows) of a tile of c: their old values times beta (before the first run over k), plus the product with a packed panel of b.
template <bool TransposeA> void add_rows(const Gemm& g, const double* a, const double* panel, int64_t k0, int depth, int64_t first, int rows, int64_t column,
                                         int width, double* c) {
  const int stride = padded<double>(width);
  double tile[gemm_rows * gemm_columns];
  const double* from = TransposeA ? a + k0 * g.m + first : a + first * g.k + k0;
  small_gemm<TransposeA, double>({rows, stride, depth, from, TransposeA ? g.m : g.k, panel, stride, nullptr, tile, stride});
  for (int r = 0; r < rows; r++) {
    double* to = c + (first + r) * g.n + column;
    const double keep = k0 > 0 ? 1 : g.beta;
    for (int j = 0; j < width; j++) to[j] = (keep == 0 ? 0 : keep * to[j]) + tile[r * stride + j];
  }
}

}  // namespace

// A column of tiles at a time, b packed so that its rows lie as vectors. Which thread takes which rows changes no sum.
void gemm(const Gemm& g, const double* a, const double* b, double* c) {
  for (int64_t i = 0; g.k == 0 && i < g.m * g.n; i++) c[i] = g.beta == 0 ? 0 : g.beta * c[i];
  constexpr int64_t run = 128;
  std::vector<double> panel(run * gemm_columns);
  for (int64_t column = 0; column < g.n; column += gemm_columns) {
    const int width = int(std::min<int64_t>(gemm_columns, g.n - column)), stride = padded<double>(width);
    for (int64_t k0 = 0; k0 < g.k; k0 += run) {
      const int depth = int(std::min(run, g.k - k0));
      for (int p = 0; p < depth; p++)
        for (int j = 0; j < stride; j++)
          panel[size_t(p * stride + j)] = j >= width ? 0 : g.alpha * (g.transpose_b ? b[(column + j) * g.k + k0 + p] : b[(k0 + p) * g.n + column + j]);
#pragma omp parallel for schedule(static) if (g.m * width * depth > 100000)
      for (int64_t first = 0; first < g.m; first += gemm_rows) {
        const int rows = int(std::min<int64_t>(gemm_rows, g.m - first));
        if (g.transpose_a) add_rows<true>(g, a, panel.data(), k0, depth, first, rows, column, width, c);
        else add_rows<false>(g, a, panel.data(), k0, depth, first, rows, column, width, c);
      }
    }
  }
}

namespace {

// Rows of c plus the bias, rounded into `to`.
template <class C, class T> void finish_rows(const Gemm& g, const C* c, const C* bias, T* to) {
#pragma omp parallel for schedule(static) if (g.m * g.n > 32768)
  for (int64_t i = 0; i < g.m; i++) {
    const C* from = c + i * g.n;
    T* row = to + i * g.n;
#pragma GCC ivdep
    for (int64_t j = 0; j < g.n; j++) row[j] = T(from[j] + (bias ? bias[j] : C(0)));
  }
}

// bias: null or in C; beta's old values are already in c.
template <class C> void multiply(const Gemm& g, const Tensor& a, const Tensor& b, const Tensor& c, const C* bias) {
  gemm(g, a.data<C>(), b.data<C>(), c.data<C>());
  if (bias) finish_rows(g, c.data<C>(), bias, c.data<C>());
}

}  // namespace

void gemm_host(const Gemm& given, const Tensor& a, const Tensor& b, const Tensor& c, const Epilogue& epilogue) {
  if (epilogue.bias_gradient) {
    const Profile uncounted;   // a device makes the sums in the product
    epilogue.bias_gradient.copy_from(column_sums(a.view({given.k, given.m})).view(epilogue.bias_gradient.shape()));
  }
  Gemm g = given;
  // Read where it is: on fibers that is host memory too, and a captured step may not copy.
  if (const Tensor& s = epilogue.scale) g.alpha *= s.dtype() == DType::f64 ? *s.data<double>() : double(*s.data<float>());
  const DType compute = c.dtype() == DType::f64 ? DType::f64 : DType::f32;
  const Tensor bias = epilogue.bias ? epilogue.bias.to(compute) : Tensor();   // no copy where it is that already
  if (compute == DType::f64) return multiply<double>(g, a, b, c, bias ? bias.data<double>() : nullptr);
  const Tensor wide_a = a.to(DType::f32), wide_b = b.to(DType::f32);
  const float* add = bias ? bias.data<float>() : nullptr;
  if (c.dtype() == DType::f32) return multiply<float>(g, wide_a, wide_b, c, add);
  const Tensor wide_c = g.beta == 0 ? Tensor::empty(c.shape(), DType::f32, c.device()) : c.to(DType::f32);
  gemm(g, wide_a.data<float>(), wide_b.data<float>(), wide_c.data<float>());
  finish_rows(g, wide_c.data<float>(), add, c.data<bf16>());
}
