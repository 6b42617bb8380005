// linear: y = alpha x W^T + b over the last dimension, W [out, in] as torch.nn.Linear stores it. A 1x1 convolution is the same op.
#include "engine/ops/linear.h"

#include "engine/ops.h"

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& alpha) {
  const OpRange range("linear");
  linear_rows::check_shapes("linear", x, weight, bias, alpha);
  const Tensor factor = linear_rows::factor(alpha, x);
  const int64_t in = x.dim(-1), out = weight.dim(0), rows = x.rows();
  const int64_t block = linear_rows::block_rows(x, out);
  const Tensor x2 = x.detached().view({rows, in}), w = linear_rows::operand(weight, x);
  Tensor y = Tensor::empty({rows, out}, x.dtype(), x.device());
  for (int64_t begin = 0; begin < rows; begin += block) {
    const int64_t r = std::min(block, rows - begin);
    gemm({.transpose_b = true, .m = r, .n = out, .k = in}, x2.slice(begin, r), w, y.slice(begin, r), {.scale = factor, .bias = bias.detached()});
  }
  y = y.view(linear_rows::with_last(x.shape(), out));
  record("linear", y, {x, weight, bias}, [x, x2, w, weight, bias, factor, rows, out, block](const Tensor& dy) {
    const Into dx = x.wants_grad() ? into(x) : Into{Tensor(), 0};
    const Tensor dy2 = dy.view({rows, out});
    for (int64_t begin = 0; begin < rows; begin += block)
      linear_rows::backward_block(dy2.slice(begin, std::min(block, rows - begin)), x2, begin, dx, w, weight, bias, factor);
  });
  return y;
}
