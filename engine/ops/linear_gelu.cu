// linear_gelu: y = gelu(alpha x W^T + b). Keeps the pre-activation; its gradient exists a cache-sized block at a time only.
#include "engine/ops.h"
#include "engine/ops/gelu_products.h"

namespace {

template <class T> struct Activate {   // h += b; y = gelu(h)
  const Compute<T>* bias;   // null: the product has added it
  T *h, *y;
  int64_t columns;
  template <class Team> HD void operator()(int64_t row, const Team& team) const {
    T *pre = h + row * columns, *out = y + row * columns;
    if (bias) {
      const auto b = team.read(bias, columns);
      team.update(pre, columns, true, [&](auto j) { return b[j]; });
    }
    const auto in = team.read(pre, columns);
    team.write(out, columns, [&](auto j) { return gelu_value(in[j]); });
  }
};

struct Slope {   // dh = dy * gelu'(h)
  template <class C> HD C operator()(C h, C dy) const { return dy * gelu_slope(h); }
};

}  // namespace

Tensor linear_gelu(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& alpha) {
  const OpRange range("linear_gelu");
  linear_rows::check_shapes("linear_gelu", x, weight, bias, alpha);
  const Tensor factor = linear_rows::factor(alpha, x);
  const int64_t in = x.dim(-1), out = weight.dim(0), rows = x.rows();
  const int64_t block = linear_rows::block_rows(x, out);
  const Tensor x2 = x.detached().view({rows, in}), w = linear_rows::operand(weight, x);
  // On the CPU the bias waits for the pass that activates; a GPU adds it to the product for nothing.
  const bool in_product = linear_rows::on_device(x);
  const Tensor b = in_product ? Tensor() : computed(bias, x.dtype());
  const Tensor h = Tensor::empty({rows, out}, x.dtype(), x.device());
  Tensor y = Tensor::empty({rows, out}, x.dtype(), x.device());
  const bool fused = gelu_products::fuses(x, out, in);
  if (fused) gelu_products::linear_gelu(x2, w, factor, bias, h, y);
  for (int64_t begin = 0; begin < rows && !fused; begin += block) {
    const int64_t r = std::min(block, rows - begin);
    const Tensor part = h.slice(begin, r);
    gemm({.transpose_b = true, .m = r, .n = out, .k = in}, x2.slice(begin, r), w, part,
         {.scale = factor, .bias = in_product ? bias.detached() : Tensor()});
    count_kernel({part}, {y.slice(begin, r)});
    dispatch(x.dtype(), [&]<class T>() {
      const Compute<T>* add = b ? b.data<Compute<T>>() : nullptr;
      map_cells<T>(x.device(), r, out, Activate<T>{add, part.data<T>(), y.slice(begin, r).data<T>(), out});
    });
  }
  y = y.view(linear_rows::with_last(x.shape(), out));
  record("linear_gelu", y, {x, weight, bias}, [x, x2, h, w, weight, bias, factor, rows, out, block](const Tensor& dy) {
    const Into dx = x.wants_grad() ? into(x) : Into{Tensor(), 0};
    const Tensor dy2 = dy.view({rows, out}), scratch = Tensor::empty({block, out}, dy.dtype(), dy.device());
    for (int64_t begin = 0; begin < rows; begin += block) {
      const int64_t r = std::min(block, rows - begin);
      const Tensor dh = scratch.slice(0, r);
      count_kernel({dh, dh}, {dh});   // h and dy are as large
      dispatch(dy.dtype(), [&]<class T>() {
        map_values(dy.device(), r * out, dh.data<T>(), false, Slope{}, h.slice(begin, r).data<T>(), dy2.slice(begin, r).data<T>());
      });
      linear_rows::backward_block(dh, x2, begin, dx, w, weight, bias, factor);
    }
  });
  return y;
}
