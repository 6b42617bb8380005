// window_attention_kernels.h: the CUDA kernels of window_attention. A block owns a window, or in backward a chunk of windows, of one head.
// Two of q, k, v, dout lie in shared memory whole; of the others a warp holds one token at a time, so that windows of 256 tokens fit.
#pragma once
#include <limits>

#include "engine/kernel.h"
#include "engine/math.h"
#include "engine/ops/window_attention.h"

namespace window_attention_kernels {

constexpr int threads = 128, warps = threads / 32;
constexpr int64_t most_chunks_cuda = 256;

// A token in shared memory, normalised as the similarity asks.
template <class C> struct Token {
  const C* row;
  RowScale<C> scale;
  C square;   // |row|^2 before it was normalised
};

// All tokens of a window in shared memory. One number of padding a row keeps a column's numbers in different banks.
template <class C> struct Tile {
  C *rows, *squares;
  int stride;
  DEVICE Token<C> operator[](int i) const { return {rows + i * stride, {C(1), C(0)}, squares[i]}; }
};

// Hands out shared memory.
template <class C> struct SharedMemory {
  C* next;
  DEVICE C* take(int count) {
    C* taken = next;
    next += count;
    return taken;
  }
  // Each warp its own.
  DEVICE C* take_for_warp(int count) { return take(warps * count) + threadIdx.x / 32 * count; }
  DEVICE Tile<C> tile(const AttentionShape& a) {
    const int n = a.tokens();
    return {take(n * (a.dim + 1)), take(n), a.dim + 1};
  }
};
inline int64_t tile_numbers(const AttentionShape& a) { return int64_t(a.tokens()) * (a.dim + 2); }

// One warp loads one token.
template <class T, class C> DEVICE Token<C> load_token(const AttentionShape& a, const T* from, Similarity similarity, C* row) {
  C square = 0;
  for (int c = lane_id(); c < a.dim; c += 32) {
    row[c] = C(from[c]);
    square += row[c] * row[c];
  }
  square = warp_sum(square);
  const RowScale<C> scale = row_scale(similarity, square, a.eps);
  for (int c = lane_id(); c < a.dim; c += 32) row[c] *= scale.inverse;
  __syncwarp();
  return {row, scale, square};
}

// Tokens of a window; they are `stride` numbers apart from `from` on.
template <class T, class C>
DEVICE void load_tile(const AttentionShape& a, int64_t window, const T* from, int stride, Similarity similarity, const Tile<C>& to) {
  for (int i = threadIdx.x / 32; i < a.tokens(); i += warps) {
    const Token<C> token = load_token(a, from + a.token(window, i) * stride, similarity, to.rows + i * to.stride);
    if (lane_id() == 0) to.squares[i] = token.square;
  }
}

template <class C> DEVICE C dot(const Token<C>& x, const Token<C>& y, int dim) {
  C sum = 0;
  for (int c = 0; c < dim; c++) sum += x.row[c] * y.row[c];
  return sum;
}

template <class C>
DEVICE C logit(const AttentionShape& a, int64_t window, const C* bias, const Token<C>& q, int i, const Token<C>& k, int j) {
  C s = dot(q, k, a.dim);
  if (a.similarity == Similarity::l2) s -= k.square / 2;
  s *= C(a.logit_scale);
  if (bias) s += bias[a.relative(i, j)];
  return !a.masked(window) || a.region(window, i) == a.region(window, j) ? s : s + C(masked_logit);
}

template <class C> size_t forward_shared(const AttentionShape& a) {
  return sizeof(C) * (2 * tile_numbers(a) + warps * (a.tokens() + a.dim + 1));
}

// One block, one window of one head; one warp, one query row at a time.
template <class T> KERNEL window_attention_forward_kernel(AttentionForward<T> call) {
  using C = Compute<T>;
  const AttentionShape& a = call.shape;
  const int n = a.tokens(), head = blockIdx.y, first = head * a.dim, warp = threadIdx.x / 32;
  const int64_t window = blockIdx.x, unit = window * a.heads + head;
  SharedMemory<C> shared{dynamic_shared<C>()};
  const Tile<C> k = shared.tile(a), v = shared.tile(a);
  C *row = shared.take_for_warp(n), *query = shared.take_for_warp(a.dim), *entropies = shared.take(warps);
  load_tile(a, window, call.k + first, a.stride, a.similarity, k);
  load_tile(a, window, call.v + first, a.stride, value_similarity(a.similarity), v);
  __syncthreads();
  const C* bias = call.bias ? call.bias + head * a.relative_positions() : nullptr;
  C entropy = 0;
  for (int i = warp; i < n; i += warps) {
    const int seen = a.causal ? i + 1 : n;
    const int64_t token = a.token(window, i);
    const Token<C> q = load_token(a, call.q + first + token * a.stride, a.similarity, query);
    C top = -std::numeric_limits<C>::infinity();
    for (int j = lane_id(); j < seen; j += 32) {
      row[j] = logit(a, window, bias, q, i, k[j], j);
      top = row[j] > top ? row[j] : top;
    }
    top = warp_max(top);
    C sum = 0, weighted = 0;
    for (int j = lane_id(); j < seen; j += 32) {
      const C below = row[j] - top, e = fast_exp(below);
      row[j] = e;
      sum += e;
      weighted += e * below;
    }
    sum = warp_sum(sum);
    weighted = warp_sum(weighted);
    const C log = std::log(sum);
    entropy += log - weighted / sum;
    if (lane_id() == 0) call.log_sum[unit * n + i] = top + log;
    __syncwarp();
    for (int c = lane_id(); c < a.dim; c += 32) {
      C o = 0;
      for (int j = 0; j < seen; j++) o += row[j] * v.rows[j * v.stride + c];
      call.out[token * a.channels + first + c] = T(o * (C(a.value_scale) / sum));
    }
    __syncwarp();
  }
  if (lane_id() == 0) entropies[warp] = entropy;
  __syncthreads();
  if (threadIdx.x != 0) return;
  entropy = 0;
  for (int w = 0; w < warps; w++) entropy += entropies[w];
  call.entropy[unit] = entropy;
}

// What a warp works in: two tokens and a gradient, and a number or two for each token of the window.
template <class C> struct WarpMemory {
  C *one, *other, *gradient;   // [dim]
  C *p, *ds;                   // [tokens]: probabilities, gradients of logits, of a row or a column of pairs
};

// factor * (sum over s in begin .. end-1 of weight[s] y[s] - pull x): the gradient of one normalised token x; goes back through the
// normalisation and out.
template <class T, class C>
DEVICE void store_gradient(const AttentionShape& a, const Token<C>& x, const C* weight, int begin, int end, const Tile<C>& y, C pull,
                           C factor, C* gradient, T* to, bool add) {
  C along = 0;
  for (int c = lane_id(); c < a.dim; c += 32) {
    C g = 0;
    for (int s = begin; s < end; s++) g += weight[s] * y.rows[s * y.stride + c];
    gradient[c] = factor * (g - pull * x.row[c]);
    along += gradient[c] * x.row[c];
  }
  along = warp_sum(along) * x.scale.along;
  for (int c = lane_id(); c < a.dim; c += 32) {
    const C g = x.scale.inverse * (gradient[c] - along * x.row[c]);
    to[c] = T(add ? C(to[c]) + g : g);
  }
}

template <class C> size_t backward_shared(const AttentionShape& a, bool biased) {
  return sizeof(C) * (2 * tile_numbers(a) + a.tokens() + warps * (3 * a.dim + 2 * a.tokens() + (biased ? a.relative_positions() : 0)));
}

// Row i of the logits' gradient, k and v whole: gives dq_i and the bias its part. Returns the sum of p dp, which the columns need.
template <class T, class C>
DEVICE C backward_row(const AttentionBackward<T>& call, int64_t window, int i, const C* bias, C log_sum, const Tile<C>& k,
                      const Tile<C>& v, const WarpMemory<C>& m, C* dbias) {
  const AttentionShape& a = call.shape;
  const int first = blockIdx.y * a.dim, seen = a.causal ? i + 1 : a.tokens();
  const int64_t token = a.token(window, i);
  const Token<C> q = load_token(a, call.q + first + token * a.stride, a.similarity, m.one);
  const Token<C> dout = load_token(a, call.dout + first + token * a.channels, Similarity::dot, m.other);
  C mean = 0;
  for (int j = lane_id(); j < seen; j += 32) {
    m.p[j] = fast_exp(logit(a, window, bias, q, i, k[j], j) - log_sum);
    m.ds[j] = C(a.value_scale) * dot(dout, v[j], a.dim);
    mean += m.p[j] * m.ds[j];
  }
  mean = warp_sum(mean);
  for (int j = lane_id(); j < seen; j += 32) {
    m.ds[j] = m.p[j] * (m.ds[j] - mean);
    if (dbias) dbias[a.relative(i, j)] += m.ds[j];   // no two j of a row have the same
  }
  __syncwarp();
  if (call.dq.to)
    store_gradient(a, q, m.ds, 0, seen, k, C(0), C(a.logit_scale), m.gradient, call.dq.to + first + token * a.stride, call.dq.add);
  __syncwarp();
  return mean;
}

// Column j, q and dout whole: gives dk_j and dv_j.
template <class T, class C>
DEVICE void backward_column(const AttentionBackward<T>& call, int64_t window, int j, const C* bias, const C* log_sum, const C* means,
                            const Tile<C>& q, const Tile<C>& dout, const WarpMemory<C>& m) {
  const AttentionShape& a = call.shape;
  const int n = a.tokens(), first = blockIdx.y * a.dim, begin = a.causal ? j : 0;
  const int64_t place = first + a.token(window, j) * a.stride;
  const Token<C> k = load_token(a, call.k + place, a.similarity, m.one);
  const Token<C> v = load_token(a, call.v + place, value_similarity(a.similarity), m.other);
  C sum = 0;
  for (int i = begin + lane_id(); i < n; i += 32) {
    m.p[i] = fast_exp(logit(a, window, bias, q[i], i, k, j) - log_sum[i]);
    m.ds[i] = m.p[i] * (C(a.value_scale) * dot(dout[i], v, a.dim) - means[i]);
    sum += m.ds[i];
  }
  const C pull = a.similarity == Similarity::l2 ? warp_sum(sum) : C(0);
  __syncwarp();
  if (call.dk.to) store_gradient(a, k, m.ds, begin, n, q, pull, C(a.logit_scale), m.gradient, call.dk.to + place, call.dk.add);
  if (call.dv.to) store_gradient(a, v, m.p, begin, n, dout, C(0), C(a.value_scale), m.gradient, call.dv.to + place, call.dv.add);
  __syncwarp();
}

// One block, one head of a chunk of windows, in order.
template <class T> KERNEL window_attention_backward_kernel(AttentionBackward<T> call) {
  using C = Compute<T>;
  const AttentionShape& a = call.shape;
  const int n = a.tokens(), head = blockIdx.y, first = head * a.dim, warp = threadIdx.x / 32, positions = a.relative_positions();
  SharedMemory<C> shared{dynamic_shared<C>()};
  const Tile<C> one = shared.tile(a), other = shared.tile(a);
  C* means = shared.take(n);
  const WarpMemory<C> m{shared.take_for_warp(a.dim), shared.take_for_warp(a.dim), shared.take_for_warp(a.dim), shared.take_for_warp(n),
                        shared.take_for_warp(n)};
  C* all_dbias = shared.next;   // [warps, positions]
  C* dbias = call.dbias ? shared.take_for_warp(positions) : nullptr;
  for (int e = threadIdx.x; dbias && e < warps * positions; e += threads) all_dbias[e] = 0;
  const C* bias = call.bias ? call.bias + head * positions : nullptr;
  const int64_t chunk = blockIdx.x, windows = a.windows();
  for (int64_t window = windows * chunk / call.chunks; window < windows * (chunk + 1) / call.chunks; window++) {
    const C* log_sum = call.log_sum + (window * a.heads + head) * n;
    load_tile(a, window, call.k + first, a.stride, a.similarity, one);
    load_tile(a, window, call.v + first, a.stride, value_similarity(a.similarity), other);
    __syncthreads();
    for (int i = warp; i < n; i += warps) {
      const C mean = backward_row(call, window, i, bias, log_sum[i], one, other, m, dbias);
      if (lane_id() == 0) means[i] = mean;
    }
    __syncthreads();
    if (!call.dk.to && !call.dv.to) continue;
    load_tile(a, window, call.q + first, a.stride, a.similarity, one);
    load_tile(a, window, call.dout + first, a.channels, Similarity::dot, other);
    __syncthreads();
    for (int j = warp; j < n; j += warps) backward_column(call, window, j, bias, log_sum, means, one, other, m);
    __syncthreads();
  }
  if (!dbias) return;
  for (int e = threadIdx.x; e < positions; e += threads) {
    C sum = 0;
    for (int w = 0; w < warps; w++) sum += all_dbias[w * positions + e];
    call.dbias[(chunk * a.heads + head) * positions + e] = sum;
  }
}

}  // namespace window_attention_kernels
