// blas_cpu.cpp: the only file that knows oneDNN. f32 by its sgemm, f64 by plain loops (gradient checks only), bf16 through f32.
#include <dnnl.h>

#include <vector>

#include "engine/blas.h"
#include "engine/profile.h"

void gemm(const Gemm& g, const float* a, const float* b, float* c) {
  count_macs(g.m * g.n * g.k);
  if (g.m == 0 || g.n == 0) return;
  if (g.k == 0) {   // oneDNN refuses a leading dimension of 0
    for (int64_t i = 0; i < g.m * g.n; i++) c[i] = g.beta == 0 ? 0 : float(g.beta) * c[i];
    return;
  }
  const dnnl_status_t status = dnnl_sgemm(g.transpose_a ? 'T' : 'N', g.transpose_b ? 'T' : 'N', g.m, g.n, g.k, float(g.alpha), a,
                                          g.transpose_a ? g.m : g.k, b, g.transpose_b ? g.k : g.n, float(g.beta), c, g.n);
  check(status == dnnl_success, "[gemm] oneDNN answered ", int(status), " for ", g.m, " x ", g.n, " x ", g.k);
}

void gemm(const Gemm& g, const double* a, const double* b, double* c) {
  count_macs(g.m * g.n * g.k);
#pragma omp parallel for schedule(static) if (g.m * g.n * g.k > 100000)
  for (int64_t i = 0; i < g.m; i++) {
    double* row = c + i * g.n;
    for (int64_t j = 0; j < g.n; j++) row[j] = g.beta == 0 ? 0 : g.beta * row[j];
    for (int64_t p = 0; p < g.k; p++) {
      const double factor = g.alpha * (g.transpose_a ? a[p * g.m + i] : a[i * g.k + p]);
      if (g.transpose_b)
        for (int64_t j = 0; j < g.n; j++) row[j] += factor * b[j * g.k + p];
      else
        for (int64_t j = 0; j < g.n; j++) row[j] += factor * b[p * g.n + j];
    }
  }
}

void gemm(const Gemm& g, const Tensor& a, const Tensor& b, const Tensor& c) {
  check(a.size() == g.m * g.k && b.size() == g.k * g.n && c.size() == g.m * g.n, "[gemm] ", g.m, " x ", g.n, " x ", g.k,
        " does not fit ", a.shape(), ", ", b.shape(), ", ", c.shape());
  if (c.dtype() == DType::f64) return gemm(g, a.data<double>(), b.data<double>(), c.data<double>());
  const Tensor wide_a = a.to(DType::f32), wide_b = b.to(DType::f32);   // no copy where they are f32 already
  if (c.dtype() == DType::f32) return gemm(g, wide_a.data<float>(), wide_b.data<float>(), c.data<float>());
  const Tensor wide_c = g.beta == 0 ? Tensor::empty(c.shape(), DType::f32, c.device()) : c.to(DType::f32);
  gemm(g, wide_a.data<float>(), wide_b.data<float>(), wide_c.data<float>());
  const float* from = wide_c.data<float>();
  bf16* to = c.data<bf16>();
  for (int64_t i = 0, n = c.size(); i < n; i++) to[i] = from[i];
}
