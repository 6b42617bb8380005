// gelu_products.h: the two products of an MLP that take GELU or its slope with them, so that the hidden tensor is gone through no second time.
#pragma once
#include "engine/math.h"
#include "engine/ops/drop_path.h"
#include "engine/gemm_mma.h"
#include "engine/ops/linear.h"

namespace gelu_products {

using gemm_mma::rounded;

// h = the product, y = gelu(h) of h as it is stored.
struct StoreWithGelu {
  bf16 *h, *y;
  int n;
  DEVICE void operator()(int row, int column, float (&value)[8]) const {
    const Piece pre = rounded(value);
    store_piece(h + int64_t(row) * n + column, pre.word);
    UNROLL for (int j = 0; j < 4; j++) {
      value[2 * j] = gelu_value(low_half(pre.word[j]));
      value[2 * j + 1] = gelu_value(high_half(pre.word[j]));
    }
    store_piece(y + int64_t(row) * n + column, rounded(value).word);
  }
};

// h = the product, y = skip base + keep alpha gelu(h) of h as it is stored.
struct StoreInSum {
  bf16 *h, *y;
  const bf16* base;
  const float* alpha;
  float skip;
  DropFactor keep;
  int n;
  DEVICE void operator()(int row, int column, float (&value)[8]) const {
    const Piece pre = rounded(value), in = load_piece(base + int64_t(row) * n + column);
    store_piece(h + int64_t(row) * n + column, pre.word);
    const float k = keep(row);
    UNROLL for (int j = 0; j < 4; j++) {
      value[2 * j] = skip * low_half(in.word[j]) + k * alpha[column + 2 * j] * gelu_value(low_half(pre.word[j]));
      value[2 * j + 1] = skip * high_half(in.word[j]) + k * alpha[column + 2 * j + 1] * gelu_value(high_half(pre.word[j]));
    }
    store_piece(y + int64_t(row) * n + column, rounded(value).word);
  }
};

// dh = the product times gelu'(h).
struct StoreTimesSlope {
  const bf16* h;
  bf16* dh;
  int n;
  DEVICE void operator()(int row, int column, float (&value)[8]) const {
    const Piece at = load_piece(h + int64_t(row) * n + column);
    UNROLL for (int j = 0; j < 4; j++) {
      value[2 * j] *= gelu_slope(low_half(at.word[j]));
      value[2 * j + 1] *= gelu_slope(high_half(at.word[j]));
    }
    store_piece(dh + int64_t(row) * n + column, rounded(value).word);
  }
};

// Whether [rows, in] times a weight [hidden, in] goes this way: bf16 on a device, in rows of whole 16 bytes.
inline bool fuses(const Tensor& x, int64_t hidden, int64_t in) {
  return linear_rows::on_device(x) && x.dtype() == DType::bf16 && gemm_mma::fits(x.rows(), hidden, in);
}

inline const float* numbers(const Tensor& vector) { return vector ? vector.data<float>() : nullptr; }

// h = scale x W^T + bias of x [rows, in] and W [hidden, in], handed to `finish`.
template <class Finish>
void linear_into(const Tensor& x, const Tensor& weight, const Tensor& scale, const Tensor& bias, int64_t hidden, const Finish& finish) {
  const Tensor wide_bias = computed(bias.detached(), x.dtype());
  const int64_t rows = x.dim(0), in = x.dim(1);
  const gemm_mma::Product product{x.data<bf16>(), weight.data<bf16>(), numbers(scale), numbers(wide_bias), int(rows), int(hidden), int(in)};
  gemm_mma::run<true>(product, finish);
}

// h and y = gelu(h).
inline void linear_gelu(const Tensor& x, const Tensor& weight, const Tensor& scale, const Tensor& bias, const Tensor& h, const Tensor& y) {
  const int64_t hidden = h.dim(1);
  count_kernel({x, weight, bias}, {h, y}, x.size() * hidden);
  if (!dry_run()) linear_into(x, weight, scale, bias, hidden, StoreWithGelu{h.data<bf16>(), y.data<bf16>(), int(hidden)});
}

// dh = scale dy W * gelu'(h) of dy [rows, out] and W [out, hidden].
inline void gelu_gradient(const Tensor& dy, const Tensor& weight, const Tensor& scale, const Tensor& h, const Tensor& dh) {
  const int64_t rows = dy.dim(0), out = dy.dim(1), hidden = h.dim(1);
  count_kernel({dy, weight, h}, {dh}, rows * hidden * out);
  if (dry_run()) return;
  const gemm_mma::Product product{dy.data<bf16>(), weight.data<bf16>(), numbers(scale), nullptr, int(rows), int(hidden), int(out)};
  gemm_mma::run<false>(product, StoreTimesSlope{h.data<bf16>(), dh.data<bf16>(), int(hidden)});
}

}  // namespace gelu_products
