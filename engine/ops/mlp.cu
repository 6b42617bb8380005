// mlp: y = W2 gelu(W1 x + b1) + b2, each product with its alpha. Where a device fuses it the gradient of the hidden tensor before GELU's slope
// exists nowhere; elsewhere it is linear_gelu and linear one after the other.
#include "engine/ops.h"
#include "engine/ops/gelu_products.h"

bool fuses_mlp(const Tensor& x, int64_t hidden, int64_t out) {
  return gelu_products::fuses(x, hidden, x.dim(-1)) && gelu_products::fuses(x, hidden, out);
}

Tensor mlp(const Tensor& x, const LinearMap& first, const LinearMap& second) {
  const int64_t in = x.dim(-1), hidden = first.weight.dim(0), out = second.weight.dim(0), rows = x.rows();
  if (!fuses_mlp(x, hidden, out)) return linear(linear_gelu(x, first.weight, first.bias, first.alpha), second.weight, second.bias, second.alpha);
  const OpRange range("mlp");
  const Tensor x2 = x.detached().view({rows, in}), h = Tensor::empty({rows, hidden}, x.dtype(), x.device()), activated = Tensor::like(h);
  linear_rows::check_shapes("mlp", x2, first.weight, first.bias, first.alpha);
  linear_rows::check_shapes("mlp", activated, second.weight, second.bias, second.alpha);
  const Tensor scale1 = linear_rows::factor(first.alpha, x), scale2 = linear_rows::factor(second.alpha, x);
  const Tensor w1 = linear_rows::operand(first.weight, x), w2 = linear_rows::operand(second.weight, x);
  gelu_products::linear_gelu(x2, w1, scale1, first.bias, h, activated);
  Tensor y = Tensor::empty({rows, out}, x.dtype(), x.device());
  gemm({.transpose_b = true, .m = rows, .n = out, .k = hidden}, activated, w2, y, {.scale = scale2, .bias = second.bias.detached()});
  y = y.view(linear_rows::with_last(x.shape(), out));
  record("mlp", y, {x, first.weight, first.bias, second.weight, second.bias},
         [x, x2, h, activated, w1, w2, first, second, scale1, scale2, rows, out](const Tensor& dy) {
    const Into dx = x.wants_grad() ? into(x) : Into{Tensor(), 0};
    const Tensor dy2 = dy.view({rows, out}), dh = Tensor::like(h);
    linear_rows::parameter_gradients(dy2, activated, second.weight, second.bias, scale2);
    gelu_products::gelu_gradient(dy2, w2, scale2, h, dh);
    linear_rows::backward_block(dh, x2, 0, dx, w1, first.weight, first.bias, scale1);
  });
  return y;
}
