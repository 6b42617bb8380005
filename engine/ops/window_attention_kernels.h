// window_attention_kernels.h: the CUDA kernels of window_attention. A block owns a window, or in backward a chunk of windows, of one head.
#pragma once
#include <limits>

#include "engine/kernel.h"
#include "engine/math.h"
#include "engine/ops/window_attention.h"

namespace window_attention_kernels {

constexpr int threads = 128, warps = threads / 32;
constexpr int64_t most_chunks_cuda = 256;

// The tokens of a window in shared memory. One number of padding a row keeps a column's numbers in different banks.
template <class C> struct Tile {
  C *rows, *inverse, *along;
  int stride;
};

// Hands out shared memory.
template <class C> struct SharedMemory {
  C* next;
  DEVICE C* take(int count) {
    C* taken = next;
    next += count;
    return taken;
  }
  DEVICE Tile<C> tile(const AttentionShape& a) {
    const int n = a.tokens();
    return {take(n * (a.dim + 1)), take(n), take(n), a.dim + 1};
  }
};

// Tokens of a window; they are `stride` numbers apart from `from` on.
template <class T, class C>
DEVICE void load_tile(const AttentionShape& a, int64_t window, const T* from, int stride, Similarity similarity, const Tile<C>& to) {
  for (int i = threadIdx.x / 32; i < a.tokens(); i += warps) {
    const int64_t token = a.token(window, a.top(window) + i / a.window, a.left(window) + i % a.window);
    C square = 0;
    for (int c = lane_id(); c < a.dim; c += 32) {
      const C x = C(from[token * stride + c]);
      to.rows[i * to.stride + c] = x;
      square += x * x;
    }
    const RowScale<C> scale = row_scale(similarity, warp_sum(square), a.eps);
    for (int c = lane_id(); c < a.dim; c += 32) to.rows[i * to.stride + c] *= scale.inverse;
    if (lane_id() == 0) {
      to.inverse[i] = scale.inverse;
      to.along[i] = scale.along;
    }
  }
}

template <class C> DEVICE C dot(const Tile<C>& x, int i, const Tile<C>& y, int j, int dim) {
  C sum = 0;
  for (int c = 0; c < dim; c++) sum += x.rows[i * x.stride + c] * y.rows[j * y.stride + c];
  return sum;
}

template <class C>
DEVICE C logit(const AttentionShape& a, int64_t window, const C* bias, const Tile<C>& q, int i, const Tile<C>& k, int j) {
  C s = C(a.logit_scale) * dot(q, i, k, j, a.dim);
  if (bias) s += bias[a.relative(i, j)];
  if (!a.masked(window)) return s;
  const int top = a.top(window), left = a.left(window), w = a.window;
  const bool together = a.region(top + i / w, left + i % w) == a.region(top + j / w, left + j % w);
  return together ? s : s + C(masked_logit);
}

template <class C> size_t forward_shared(const AttentionShape& a) {
  const size_t n = a.tokens();
  return sizeof(C) * (3 * n * (a.dim + 3) + warps * n + warps);
}

// One block, one window of one head; one warp, one query row at a time.
template <class T> KERNEL window_attention_forward_kernel(AttentionForward<T> call) {
  using C = Compute<T>;
  const AttentionShape& a = call.shape;
  const int n = a.tokens(), channels = a.channels(), head = blockIdx.y, warp = threadIdx.x / 32;
  const int64_t window = blockIdx.x, unit = window * a.heads + head;
  SharedMemory<C> shared{dynamic_shared<C>()};
  const Tile<C> q = shared.tile(a), k = shared.tile(a), v = shared.tile(a);
  C* row = shared.take(warps * n) + warp * n;
  C* entropies = shared.take(warps);
  const T* qkv = call.qkv + head * a.dim;
  load_tile(a, window, qkv, 3 * channels, a.similarity, q);
  load_tile(a, window, qkv + channels, 3 * channels, a.similarity, k);
  load_tile(a, window, qkv + 2 * channels, 3 * channels, value_similarity(a.similarity), v);
  __syncthreads();
  const C* bias = call.bias ? call.bias + head * a.relative_positions() : nullptr;
  C entropy = 0;
  for (int i = warp; i < n; i += warps) {
    C top = -std::numeric_limits<C>::infinity();
    for (int j = lane_id(); j < n; j += 32) {
      row[j] = logit(a, window, bias, q, i, k, j);
      top = row[j] > top ? row[j] : top;
    }
    top = warp_max(top);
    C sum = 0, weighted = 0;
    for (int j = lane_id(); j < n; j += 32) {
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
    const int64_t token = a.token(window, a.top(window) + i / a.window, a.left(window) + i % a.window);
    for (int c = lane_id(); c < a.dim; c += 32) {
      C o = 0;
      for (int j = 0; j < n; j++) o += row[j] * v.rows[j * v.stride + c];
      call.out[token * channels + head * a.dim + c] = T(o * (C(a.value_scale) / sum));
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

// factor * sum over s of weight[s * step] y[s]: the gradient of one normalised token x; goes back through the normalisation and out.
template <class T, class C>
DEVICE void store_gradient(const AttentionShape& a, int64_t window, const Tile<C>& x, int i, const C* weight, int step, const Tile<C>& y,
                           C factor, C* row, T* to, int stride, bool add) {
  C along = 0;
  for (int c = lane_id(); c < a.dim; c += 32) {
    C g = 0;
    for (int s = 0; s < a.tokens(); s++) g += weight[s * step] * y.rows[s * y.stride + c];
    row[c] = factor * g;
    along += row[c] * x.rows[i * x.stride + c];
  }
  along = warp_sum(along) * x.along[i];
  const int64_t token = a.token(window, a.top(window) + i / a.window, a.left(window) + i % a.window);
  for (int c = lane_id(); c < a.dim; c += 32) {
    const C g = x.inverse[i] * (row[c] - along * x.rows[i * x.stride + c]);
    T& out = to[token * stride + c];
    out = T(add ? C(out) + g : g);
  }
}

// Adds what this window says about the bias: a thread owns a relative position and walks over the pairs that have it.
template <class C> DEVICE void add_bias_gradient(const AttentionShape& a, const C* dlogits, C* dbias) {
  const int w = a.window, n = a.tokens(), side = 2 * w - 1;
  for (int e = threadIdx.x; e < side * side; e += threads) {
    const int dy = e / side - (w - 1), dx = e % side - (w - 1);
    C sum = 0;
    for (int y = dy > 0 ? dy : 0; y < w && y - dy < w; y++)
      for (int x = dx > 0 ? dx : 0; x < w && x - dx < w; x++) sum += dlogits[(y * w + x) * n + (y - dy) * w + x - dx];
    dbias[e] += sum;
  }
}

template <class C> size_t backward_shared(const AttentionShape& a) {
  const size_t n = a.tokens();
  return sizeof(C) * (4 * n * (a.dim + 3) + n * n + warps * std::max<size_t>(n, a.dim) + a.relative_positions());
}

// One block, one head of a chunk of windows, in order.
template <class T> KERNEL window_attention_backward_kernel(AttentionBackward<T> call) {
  using C = Compute<T>;
  const AttentionShape& a = call.shape;
  const int n = a.tokens(), channels = a.channels(), head = blockIdx.y, warp = threadIdx.x / 32, positions = a.relative_positions();
  SharedMemory<C> shared{dynamic_shared<C>()};
  const Tile<C> q = shared.tile(a), k = shared.tile(a), v = shared.tile(a), dout = shared.tile(a);
  C* pairs = shared.take(n * n);   // first the probabilities, then the gradient of the logits
  const int row_size = n > a.dim ? n : a.dim;
  C* row = shared.take(warps * row_size) + warp * row_size;
  C* dbias = shared.take(positions);
  for (int e = threadIdx.x; e < positions; e += threads) dbias[e] = 0;
  const C* bias = call.bias ? call.bias + head * positions : nullptr;
  const C nu = C(a.value_scale), scale = C(a.logit_scale);
  const int64_t chunk = blockIdx.x, windows = a.windows();
  for (int64_t window = windows * chunk / call.chunks; window < windows * (chunk + 1) / call.chunks; window++) {
    const T* qkv = call.qkv + head * a.dim;
    load_tile(a, window, qkv, 3 * channels, a.similarity, q);
    load_tile(a, window, qkv + channels, 3 * channels, a.similarity, k);
    load_tile(a, window, qkv + 2 * channels, 3 * channels, value_similarity(a.similarity), v);
    load_tile(a, window, call.dout + head * a.dim, channels, Similarity::dot, dout);
    __syncthreads();
    const C* log_sum = call.log_sum + (window * a.heads + head) * n;
    for (int t = threadIdx.x; t < n * n; t += threads)
      pairs[t] = fast_exp(logit(a, window, bias, q, t / n, k, t % n) - log_sum[t / n]);
    __syncthreads();
    T* dqkv = call.dqkv ? call.dqkv + head * a.dim : nullptr;
    if (dqkv)
      for (int j = warp; j < n; j += warps)
        store_gradient(a, window, v, j, pairs + j, n, dout, nu, row, dqkv + 2 * channels, 3 * channels, call.add);
    __syncthreads();
    for (int i = warp; i < n; i += warps) {
      C mean = 0;
      for (int j = lane_id(); j < n; j += 32) {
        row[j] = nu * dot(dout, i, v, j, a.dim);
        mean += row[j] * pairs[i * n + j];
      }
      mean = warp_sum(mean);
      for (int j = lane_id(); j < n; j += 32) pairs[i * n + j] *= row[j] - mean;
    }
    __syncthreads();
    if (dqkv)
      for (int i = warp; i < n; i += warps) {
        store_gradient(a, window, q, i, pairs + i * n, 1, k, scale, row, dqkv, 3 * channels, call.add);
        store_gradient(a, window, k, i, pairs + i, n, q, scale, row, dqkv + channels, 3 * channels, call.add);
      }
    if (call.dbias) add_bias_gradient(a, pairs, dbias);
    __syncthreads();
  }
  if (!call.dbias) return;
  for (int e = threadIdx.x; e < positions; e += threads) call.dbias[(chunk * a.heads + head) * positions + e] = dbias[e];
}

}  // namespace window_attention_kernels
