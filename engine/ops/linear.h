// linear.h: what linear, linear_gelu and mlp share: work through the rows in blocks that stay in the cache between the product and what
// follows it.
#pragma once
#include "engine/blas.h"
#include "engine/column_sums.h"
#include "engine/map.h"
#include "engine/profile.h"

namespace linear_rows {

inline bool on_device(const Tensor& x) { return x.device().kind == Device::cuda || dry_run(); }

// Rows a block: about 1 MiB of output, and enough of them that the product runs at full speed.
inline int64_t block_rows(const Tensor& x, int64_t columns) {
  return on_device(x) ? x.rows() : std::min(x.rows(), std::max<int64_t>(512, 262144 / std::max<int64_t>(1, columns)));
}

// The weight as the product takes it: on a GPU in the type of the activations, on the CPU in the type that computes.
inline Tensor operand(const Tensor& weight, const Tensor& x) {
  if (!on_device(x)) return computed(weight, x.dtype());
  const Tensor narrow = weight.detached().to(x.dtype());
  if (x.dtype() != weight.dtype()) count_kernel({weight}, {narrow});
  return narrow;
}

// Gradients of weight and bias from the product's gradient dy [r, out] and what it was made of, x [r, in]. A device sums dy in the product.
inline void parameter_gradients(const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& alpha) {
  const int64_t r = dy.dim(0), out = dy.dim(1), in = x.dim(1);
  Tensor sums;
  if (bias.wants_grad()) {
    const bool in_product = on_device(dy) && weight.wants_grad() && dy.dtype() != DType::f64;
    if (in_product) sums = Tensor::empty({out}, DType::f32, dy.device());
    else add_to_gradient(column_sums(dy), bias);
  }
  if (!weight.wants_grad()) return;
  const auto [dw, beta] = into(weight);
  gemm({.transpose_a = true, .m = out, .n = in, .k = r, .beta = beta}, dy, x, dw, {.scale = alpha, .bias_gradient = sums});
  if (sums) add_to_gradient(sums, bias);
}

// The same and that of x from a block of rows; rows begin .. of x2 [rows, in].
inline void backward_block(const Tensor& dy, const Tensor& x2, int64_t begin, const Into& dx, const Tensor& operand,
                           const Tensor& weight, const Tensor& bias, const Tensor& alpha) {
  const int64_t r = dy.dim(0), out = dy.dim(1), in = x2.dim(1);
  if (dx.grad)
    gemm({.m = r, .n = in, .k = out, .beta = dx.beta}, dy, operand, dx.grad.view(x2.shape()).slice(begin, r), {.scale = alpha});
  parameter_gradients(dy, x2.slice(begin, r), weight, bias, alpha);
}

inline void check_shapes(const char* op, const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& alpha) {
  const int64_t in = x.dim(-1), out = weight.dim(0);
  check(weight.size() == in * out, "[", op, "] x is ", x.shape(), ", weight is ", weight.shape(), ": last dimensions must agree");
  check(!bias || bias.size() == out, "[", op, "] bias is ", bias.shape(), ", expected [", out, "]");
  check(!alpha || alpha.size() == 1, "[", op, "] alpha must be one number, given ", alpha.shape());
}

// The factor as it stands now, in the type that computes: backward must not see a later value.
inline Tensor factor(const Tensor& alpha, const Tensor& x) {
  if (!alpha) return {};
  const Tensor f = Tensor::empty({1}, x.dtype() == DType::f64 ? DType::f64 : DType::f32, x.device());
  f.copy_from(alpha.detached().to(f.dtype()).view({1}));
  return f;
}

inline Shape with_last(const Shape& shape, int64_t last) {
  std::vector<int64_t> dims = shape.dims();
  dims.back() = last;
  return Shape(dims);
}

}  // namespace linear_rows
