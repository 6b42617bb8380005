// linear_gelu: y = gelu(h), h = factor x W^T + b, and linear_gelu_residual: y = skip base + drop(alpha * gelu(h)). Both keep h, the pre-activation; its
// gradient exists a cache-sized block at a time only.
#include "engine/ops.h"
#include "engine/ops/gelu_products.h"
#include "engine/ops/residual.h"

namespace {

// The sum that gelu(h) goes into.
struct Branch {
  Tensor base;    // empty: there is none
  Tensor alpha;   // as it was given
  DropPath drop;
  double skip = 1;
};

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

template <class T> struct ActivateIntoSum {   // h += b; y = skip base + keep alpha gelu(h)
  const Compute<T>* bias;   // null: the product has added it
  T *h, *y;
  const T* base;
  const Compute<T>* alpha;
  Compute<T> skip;
  DropFactor keep;
  int64_t first, columns;   // first: row 0 of h in the whole
  template <class Team> HD void operator()(int64_t row, const Team& team) const {
    using C = Compute<T>;
    T *pre = h + row * columns, *out = y + row * columns;
    const C k = keep(first + row), s = skip;
    if (bias) {
      const auto b = team.read(bias, columns);
      team.update(pre, columns, true, [&](auto j) { return b[j]; });
    }
    const auto in = team.read(pre, columns), x = team.read(base + row * columns, columns);
    const auto a = team.read(alpha, columns);
    team.write(out, columns, [&](auto j) { return s * x[j] + k * a[j] * gelu_value(in[j]); });
  }
};

template <class T> struct BackFromSum {   // dh = keep alpha dy gelu'(h), dalpha = sum keep dy gelu(h)
  const T *h, *dy;
  const Compute<T>* alpha;
  T* dh;
  DropFactor keep;
  int64_t first, columns;
  template <class Team, class Sums> HD void operator()(int64_t row, const Team& team, Sums& sums) const {
    using C = Compute<T>;
    const C k = keep(first + row);
    const auto pre = team.read(h + row * columns, columns), g = team.read(dy + row * columns, columns);
    const auto a = team.read(alpha, columns);
    team.update(dh + row * columns, columns, false, [&](auto j) {
      const GeluAndSlope<C> gelu = gelu_and_slope(pre[j]);
      const C kg = k * g[j];
      sums.add(0, j, kg * gelu.value);
      return a[j] * kg * gelu.slope;
    });
  }
};

struct Slope {   // dh = dy * gelu'(h)
  template <class C> HD C operator()(C h, C dy) const { return dy * gelu_slope(h); }
};

// y of a block of rows from the product h; rows begin .. of the whole. bias: what the product has not added.
void activate(const Tensor& h, const Tensor& bias, const Branch& branch, const Tensor& alpha, const DropFactor& keep, int64_t begin, const Tensor& y) {
  const int64_t rows = h.dim(0), columns = h.dim(1);
  const Tensor base = branch.base ? branch.base.detached().view({branch.base.rows(), columns}).slice(begin, rows) : Tensor();
  count_kernel({h, base, alpha}, {y});
  dispatch(h.dtype(), [&]<class T>() {
    using C = Compute<T>;
    const C* add = bias ? bias.data<C>() : nullptr;
    if (base)
      map_cells<T>(h.device(), rows, columns,
                   ActivateIntoSum<T>{add, h.data<T>(), y.data<T>(), base.data<T>(), alpha.data<C>(), C(branch.skip), keep, begin, columns});
    else
      map_cells<T>(h.device(), rows, columns, Activate<T>{add, h.data<T>(), y.data<T>(), columns});
  });
}

// dh of a block of rows from dy; adds to the gradient of alpha.
void gradient_of_product(const Tensor& h, const Tensor& dy, const Branch& branch, const Tensor& alpha, const DropFactor& keep, int64_t begin,
                         const Tensor& dh) {
  const int64_t rows = h.dim(0), columns = h.dim(1);
  count_kernel({h, dy, alpha}, {dh});
  dispatch(dy.dtype(), [&]<class T>() {
    using C = Compute<T>;
    if (!branch.base) return map_values(dy.device(), dy.size(), dh.data<T>(), false, Slope{}, h.data<T>(), dy.data<T>());
    const BackFromSum<T> back{h.data<T>(), dy.data<T>(), alpha.data<C>(), dh.data<T>(), keep, begin, columns};
    const Tensor sums = map_cells_reduce<T, 1>(dy.device(), rows, columns, back);
    if (branch.alpha && branch.alpha.wants_grad()) residual_sum::add_alpha_gradient<C>(sums, branch.alpha);
  });
}

void product_in_sum(const Tensor& x, const Tensor& weight, const Tensor& factor, const Tensor& bias, const Branch& branch, const Tensor& alpha,
                    const DropFactor& keep, const Tensor& h, const Tensor& y) {
  const int64_t hidden = h.dim(1);
  count_kernel({x, weight, bias, branch.base, alpha}, {h, y}, x.size() * hidden);
  if (dry_run()) return;
  gelu_products::linear_into(x, weight, factor, bias, hidden,
                             gelu_products::StoreInSum{h.data<bf16>(), y.data<bf16>(), branch.base.data<bf16>(), alpha.data<float>(), float(branch.skip), keep,
                                                       int(hidden)});
}

Tensor with_gelu(const char* op, const Tensor& x, const LinearMap& map, const Branch& branch) {
  const Tensor &weight = map.weight, &bias = map.bias;
  linear_rows::check_shapes(op, x, weight, bias, map.alpha);
  const Tensor factor = linear_rows::factor(map.alpha, x);
  const int64_t in = x.dim(-1), out = weight.dim(0), rows = x.rows();
  const int64_t block = linear_rows::block_rows(x, out);
  const Tensor x2 = x.detached().view({rows, in}), w = linear_rows::operand(weight, x);
  // On the CPU the bias waits for the pass that activates; a GPU adds it to the product for nothing.
  const bool in_product = linear_rows::on_device(x);
  const Tensor b = in_product ? Tensor() : computed(bias, x.dtype());
  const Tensor alpha = branch.base ? residual_sum::every_channel(branch.alpha, x, out) : Tensor();
  const DropFactor keep = branch.base ? drop_factor(branch.drop, branch.base) : DropFactor{};
  const Tensor h = Tensor::empty({rows, out}, x.dtype(), x.device());
  Tensor y = Tensor::empty({rows, out}, x.dtype(), x.device());
  const bool fused = gelu_products::fuses(x, out, in);
  if (fused && branch.base) product_in_sum(x2, w, factor, bias, branch, alpha, keep, h, y);
  else if (fused) gelu_products::linear_gelu(x2, w, factor, bias, h, y);
  for (int64_t begin = 0; begin < rows && !fused; begin += block) {
    const int64_t r = std::min(block, rows - begin);
    const Tensor part = h.slice(begin, r);
    gemm({.transpose_b = true, .m = r, .n = out, .k = in}, x2.slice(begin, r), w, part,
         {.scale = factor, .bias = in_product ? bias.detached() : Tensor()});
    activate(part, b, branch, alpha, keep, begin, y.slice(begin, r));
  }
  y = y.view(linear_rows::with_last(x.shape(), out));
  record(op, y, {x, weight, bias, branch.base, branch.alpha}, [=](const Tensor& dy) {
    const Into dx = x.wants_grad() ? into(x) : Into{Tensor(), 0};
    const Tensor dy2 = dy.view({rows, out}), scratch = Tensor::empty({block, out}, dy.dtype(), dy.device());
    for (int64_t begin = 0; begin < rows; begin += block) {
      const int64_t r = std::min(block, rows - begin);
      const Tensor dh = scratch.slice(0, r);
      gradient_of_product(h.slice(begin, r), dy2.slice(begin, r), branch, alpha, keep, begin, dh);
      linear_rows::backward_block(dh, x2, begin, dx, w, map.weight, map.bias, factor);
    }
    if (branch.base) residual_sum::pass_on_skipped(dy, branch.base, branch.skip);
  });
  return y;
}

}  // namespace

Tensor linear_gelu(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& alpha) {
  const OpRange range("linear_gelu");
  return with_gelu("linear_gelu", x, {weight, bias, alpha}, {});
}

Tensor linear_gelu_residual(const Tensor& base, const Tensor& x, const LinearMap& map, const Tensor& alpha, const DropPath& drop, double skip) {
  const OpRange range("linear_gelu_residual");
  const int64_t out = map.weight.dim(0);
  check(base.size() == x.rows() * out && base.dim(-1) == out && base.dtype() == x.dtype(), "[linear_gelu_residual] x is ", x.shape(), ", weight is ",
        map.weight.shape(), ", base is ", base.shape(), ": shapes must agree");
  residual_sum::check_alpha("linear_gelu_residual", alpha, out);
  return with_gelu("linear_gelu_residual", x, map, {base, alpha, drop, skip});
}
