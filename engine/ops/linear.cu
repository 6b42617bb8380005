// linear: y = alpha x W^T + b over the last dimension, W [out, in] as torch.nn.Linear stores it. A 1x1 convolution is the same op.
#include "engine/ops/linear.h"

#include "engine/ops.h"

namespace {

template <class T> struct AddBias {
  const Compute<T>* bias;
  T* y;
  int64_t columns;
  template <class Team> HD void operator()(int64_t row, const Team& team) const {
    const auto b = team.read(bias, columns);
    team.update(y + row * columns, columns, true, [&](auto j) { return b[j]; });
  }
};

}  // namespace

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& alpha) {
  const OpRange range("linear");
  linear_rows::check_shapes("linear", x, weight, bias, alpha);
  const double factor = linear_rows::factor(alpha);
  const int64_t in = x.dim(-1), out = weight.dim(0), rows = x.rows();
  const int64_t block = linear_rows::block_rows(x.device(), rows, out);
  const Tensor x2 = x.detached().view({rows, in}), w = computed(weight, x.dtype()), b = computed(bias, x.dtype());
  Tensor y = Tensor::empty({rows, out}, x.dtype(), x.device());
  for (int64_t begin = 0; begin < rows; begin += block) {
    const int64_t r = std::min(block, rows - begin);
    const Tensor part = y.slice(begin, r);
    gemm({.transpose_b = true, .m = r, .n = out, .k = in, .alpha = factor}, x2.slice(begin, r), w, part);
    if (!b) continue;
    dispatch(x.dtype(), [&]<class T>() { map_cells<T>(x.device(), r, out, AddBias<T>{b.data<Compute<T>>(), part.data<T>(), out}); });
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
