// linear.h: what linear and linear_gelu share: work through the rows in blocks that stay in the cache between the product and what
// follows it.
#pragma once
#include "engine/blas.h"
#include "engine/map.h"
#include "engine/profile.h"

namespace linear_rows {

// Rows a block: about 1 MiB of output, and enough of them that the product runs at full speed.
inline int64_t block_rows(Device device, int64_t rows, int64_t columns) {
  return device.kind == Device::cuda || dry_run() ? rows : std::min(rows, std::max<int64_t>(512, 262144 / std::max<int64_t>(1, columns)));
}

template <class T> struct BiasSums {   // dbias = column sums of dy
  const T* dy;
  int64_t columns;
  template <class Team, class Sums> HD void operator()(int64_t row, const Team& team, Sums& sums) const {
    const auto g = team.read(dy + row * columns, columns);
    team.each(columns, [&](auto j) { sums.add(0, j, g[j]); });
  }
};

// The weight as the product takes it: on a GPU in the type of the activations, on the CPU in the type that computes.
inline Tensor operand(const Tensor& weight, const Tensor& x) {
  if (x.device().kind != Device::cuda && !dry_run()) return computed(weight, x.dtype());
  const Tensor narrow = weight.detached().to(x.dtype());
  if (x.dtype() != weight.dtype()) count_kernel({weight}, {narrow});
  return narrow;
}

// Gradients of x, weight and bias from a block of the product's gradient dy [r, out]; rows begin .. of x2 [rows, in].
inline void backward_block(const Tensor& dy, const Tensor& x2, int64_t begin, const Into& dx, const Tensor& operand,
                           const Tensor& weight, const Tensor& bias, const Tensor& alpha) {
  const int64_t r = dy.dim(0), out = dy.dim(1), in = x2.dim(1);
  if (bias && bias.wants_grad()) {
    count_kernel({dy}, {});
    dispatch(dy.dtype(), [&]<class T>() {
      add_sums<Compute<T>>(map_cells_reduce<T, 1>(dy.device(), r, out, BiasSums<T>{dy.data<T>(), out}), 0, bias);
    });
  }
  if (dx.grad) gemm({.m = r, .n = in, .k = out, .beta = dx.beta}, dy, operand, dx.grad.view(x2.shape()).slice(begin, r), {.scale = alpha, .bias = {}});
  if (weight.wants_grad()) {
    auto [dw, beta] = into(weight);
    gemm({.transpose_a = true, .m = out, .n = in, .k = r, .beta = beta}, dy, x2.slice(begin, r), dw, {.scale = alpha, .bias = {}});
  }
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
