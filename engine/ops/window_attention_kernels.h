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

// A number of a value as it was before the value was normalised.
template <class C> DEVICE C plain_value(const AttentionShape& a, const Tile<C>& v, int i, int c) {
  return v.rows[i * v.stride + c] / row_scale(value_similarity(a.similarity), v.squares[i], a.eps).inverse;
}

// Sum over the taps of weight_t x(j), of the tokens j in the window that they see from token i; `back`: of the tokens whose taps see token i.
template <class C, class X> DEVICE C convolve(const AttentionShape& a, int i, const C* weight, bool back, X&& x) {
  C sum = 0;
  a.each_tap(i / a.window_width, i % a.window_width, [&](int t, int to) { sum += weight[back ? lepe_taps - 1 - t : t] * x(i + to); });
  return sum;
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
      o *= C(a.value_scale) / sum;
      const LepeTaps<C>& lepe = call.lepe;
      if (a.lepe) o += lepe.bias[first + c] + convolve(a, i, lepe.weight + (first + c) * lepe_taps, false, [&](int j) { return plain_value(a, v, j, c); });
      call.out[token * a.channels + first + c] = T(o);
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

// What a warp works in: two tokens and a gradient, a number or two for each token of the window, and its sums of LePE's gradients.
template <class C> struct WarpMemory {
  C *one, *other, *gradient;   // [dim]
  C *p, *ds;                   // [tokens]: probabilities, gradients of logits, of a row or a column of pairs
  C* dlepe;                    // [10, dim], or null
};

// factor * (sum over s in begin .. end-1 of weight[s] y[s] - pull x): the gradient of one normalised token x; goes back through the
// normalisation and, with further(c) on top of number c, out.
template <class T, class C, class F>
DEVICE void store_gradient(const AttentionShape& a, const Token<C>& x, const C* weight, int begin, int end, const Tile<C>& y, C pull,
                           C factor, C* gradient, T* to, bool add, F&& further) {
  C along = 0;
  for (int c = lane_id(); c < a.dim; c += 32) {
    C g = 0;
    for (int s = begin; s < end; s++) g += weight[s] * y.rows[s * y.stride + c];
    gradient[c] = factor * (g - pull * x.row[c]);
    along += gradient[c] * x.row[c];
  }
  along = warp_sum(along) * x.scale.along;
  for (int c = lane_id(); c < a.dim; c += 32) {
    const C g = x.scale.inverse * (gradient[c] - along * x.row[c]) + further(c);
    to[c] = T(add ? C(to[c]) + g : g);
  }
}

struct Nothing {
  DEVICE int operator()(int) const { return 0; }
};

template <class C> size_t backward_shared(const AttentionShape& a, bool biased) {
  const int of_warp = (3 + (a.lepe ? lepe_sums : 0)) * a.dim + 2 * a.tokens() + (biased ? a.relative_positions() : 0);
  return sizeof(C) * (2 * tile_numbers(a) + a.tokens() + warps * of_warp);
}

// What token i adds to the gradients of LePE's taps and bias; a lane has channels of its own.
template <class C> DEVICE void add_lepe_sums(const AttentionShape& a, int i, const Token<C>& dout, const Tile<C>& v, C* sums) {
  for (int c = lane_id(); c < a.dim; c += 32) {
    a.each_tap(i / a.window_width, i % a.window_width, [&](int t, int to) { sums[t * a.dim + c] += dout.row[c] * plain_value(a, v, i + to, c); });
    sums[lepe_taps * a.dim + c] += dout.row[c];
  }
}

// Row i of the logits' gradient, k and v whole: gives dq_i and the bias and LePE their parts. Returns the sum of p dp, which the columns need.
template <class T, class C>
DEVICE C backward_row(const AttentionBackward<T>& call, int64_t window, int i, const C* bias, C log_sum, const Tile<C>& k,
                      const Tile<C>& v, const WarpMemory<C>& m, C* dbias) {
  const AttentionShape& a = call.shape;
  const int first = blockIdx.y * a.dim, seen = a.causal ? i + 1 : a.tokens();
  const int64_t token = a.token(window, i);
  const Token<C> q = load_token(a, call.q + first + token * a.stride, a.similarity, m.one);
  const Token<C> dout = load_token(a, call.dout + first + token * a.channels, Similarity::dot, m.other);
  if (m.dlepe) add_lepe_sums(a, i, dout, v, m.dlepe);
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
    store_gradient(a, q, m.ds, 0, seen, k, C(0), C(a.logit_scale), m.gradient, call.dq.to + first + token * a.stride, call.dq.add, Nothing{});
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
  if (call.dk.to) store_gradient(a, k, m.ds, begin, n, q, pull, C(a.logit_scale), m.gradient, call.dk.to + place, call.dk.add, Nothing{});
  if (call.dv.to)
    store_gradient(a, v, m.p, begin, n, dout, C(0), C(a.value_scale), m.gradient, call.dv.to + place, call.dv.add, [&](int c) {
      if (!a.lepe) return C(0);
      return convolve(a, j, call.lepe.weight + (first + c) * lepe_taps, true, [&](int i) { return dout.rows[i * dout.stride + c]; });
    });
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
                        shared.take_for_warp(n), a.lepe ? shared.take_for_warp(lepe_sums * a.dim) : nullptr};
  for (int e = lane_id(); m.dlepe && e < lepe_sums * a.dim; e += 32) m.dlepe[e] = 0;
  __syncwarp();
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
  const auto over_warps = [&](const C* sums, int count, int e) {
    C sum = 0;
    for (int w = 0; w < warps; w++) sum += sums[w * count + e];
    return sum;
  };
  for (int e = threadIdx.x; dbias && e < positions; e += threads)
    call.dbias[(chunk * a.heads + head) * positions + e] = over_warps(all_dbias, positions, e);
  const int count = lepe_sums * a.dim;
  for (int e = threadIdx.x; call.dlepe && e < count; e += threads)
    call.lepe_sum(chunk, e / a.dim, head, e % a.dim) = over_warps(m.dlepe - warp * count, count, e);
}

}  // namespace window_attention_kernels
