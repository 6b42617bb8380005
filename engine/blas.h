// blas.h: matrix products. oneDNN on the CPU (blas_cpu.cpp), cuBLASLt on a GPU (blas_cuda.cpp); on fibers the CPU's.
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
// What a product takes with it on its way out, before it is rounded: scale alpha op(A) op(B) + beta C + bias.
struct Epilogue {
  Tensor scale;   // [1] in the type that computes, read where it is: the host never waits for it
  Tensor bias;    // [n], added to each row
  // f32 [m], instead of a bias: written with the sums of op(A) over k, unscaled. A is transposed: of a weight's gradient dy^T x these are the
  // gradient of the bias, without a second pass over dy.
  Tensor bias_gradient;
};
void gemm(const Gemm& g, const Tensor& a, const Tensor& b, const Tensor& c, const Epilogue& epilogue = {});

// The same on raw numbers of the host, for code that works through a tensor piece by piece.
void gemm(const Gemm& g, const float* a, const float* b, float* c);
void gemm(const Gemm& g, const double* a, const double* b, double* c);

// Products of f32 numbers on a GPU may use its tensor cores with 10 bits of mantissa (tf32). Off unless a recipe asks for it.
bool& allow_tf32();

// Each side's part of gemm(Tensor), by the device of c.
void gemm_host(const Gemm& g, const Tensor& a, const Tensor& b, const Tensor& c, const Epilogue& epilogue);
void gemm_device(const Gemm& g, const Tensor& a, const Tensor& b, const Tensor& c, const Epilogue& epilogue);
