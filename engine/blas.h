// blas.h: matrix products. oneDNN on the CPU; the CUDA side comes through the same door.
#pragma once
#include <cstdint>

#include "engine/tensor.h"

// C = alpha op(A) op(B) + beta C, row-major, op(A) [m, k], op(B) [k, n], C [m, n]; a transposed operand is stored the other way.
// Computed in f32 (f64 for f64), whatever the storage. With several OpenMP threads oneDNN may split a sum between them, so its last bits
// depend on their number; training gives each shard one thread, and then they do not.
struct Gemm {
  bool transpose_a = false, transpose_b = false;
  int64_t m = 0, n = 0, k = 0;
  double alpha = 1, beta = 0;
};
void gemm(const Gemm& g, const Tensor& a, const Tensor& b, const Tensor& c);   // counts itself for the profile

// The same on raw numbers, for code that works through a tensor piece by piece.
void gemm(const Gemm& g, const float* a, const float* b, float* c);
void gemm(const Gemm& g, const double* a, const double* b, double* c);
