// depthwise_conv_strips.h: depthwise convolution on CUDA with a K known to the compiler, 7 for LipsFormer. A warp walks down a strip of
// `span` columns of one image for 32 channels, one a lane. Each number of x is read once a strip and multiplied K * span times from
// registers: f32 arithmetic sets the pace, not shared memory.
#pragma once
#include "engine/kernel.h"
#include "engine/ops/depthwise_conv.h"
#include "engine/ops/drop_path.h"

namespace depthwise {

constexpr int strip_warps = 4;   // a block

// Where a warp works: its image, its first column, and its lane's channel.
struct Strip {
  int64_t image, column, channel;
  HD Strip(const Sizes& s, int64_t strip, int64_t channel)
      : image(strip / s.spans(s.width)), column(strip % s.spans(s.width) * span), channel(channel) {}
  HD static int64_t count(const Sizes& s) { return s.batch * s.spans(s.width); }
};

// Reads neighbouring numbers of a row of the lane's channel, from column `first` of the strip's on; 0 outside of the map.
struct RowReader {
  int64_t start;     // of row 0, column `first`
  int a_column, a_row, rows;
  unsigned inside;   // bit k: column first + k lies in the map
  DEVICE RowReader(const Sizes& s, const Strip& strip, int64_t first)
      : start(s.index(strip.image, 0, first, strip.channel)), a_column(int(s.channels)), a_row(int(s.width * s.channels)), rows(int(s.height)), inside(0) {
    for (int k = 0; k < 32; k++) inside |= unsigned(first + k >= 0 && first + k < s.width && strip.channel < s.channels) << k;
  }
  template <int count, class T> DEVICE void operator()(const T* x, int row, int skipped, T (&to)[count]) const {
    const unsigned wanted = row >= 0 && row < rows ? inside >> skipped : 0;
    const T* from = x + start + int64_t(row) * a_row + skipped * a_column;
    UNROLL
    for (int k = 0; k < count; k++) to[k] = wanted >> k & 1 ? from[k * a_column] : T(0.0f);
  }
};

// Row r of x goes into the rows r - pad .. r + pad of y: sum[i] is row r - pad + i, and with each r the rows move up by one.
// Grid [strips / strip_warps * channel groups], block [32, strip_warps].
template <int K, class T, class S>
KERNEL __launch_bounds__(32 * strip_warps, 3) strips_convolve_kernel(Sizes s, const T* x, const Compute<T>* packed, DropFactor drop, S store) {
  using C = Compute<T>;
  constexpr int pad = K / 2, reach = span + K - 1;
  const int64_t groups = (s.channels + 31) / 32, number = blockIdx.x / groups * strip_warps + threadIdx.y;
  if (number >= Strip::count(s)) return;
  const Strip strip(s, number, int64_t(blockIdx.x % groups) * 32 + threadIdx.x);
  const bool real = strip.channel < s.channels;
  C weight[K][K], sum[K][span];
  UNROLL
  for (int i = 0; i < K * K; i++) weight[i / K][i % K] = real ? packed[s.packed(strip.channel, i)] : C(0);
  const C start = real ? packed[s.packed(strip.channel, s.bias_slot())] : C(0);
  const C factor = real ? C(drop.of_sample(strip.image)) * packed[s.packed(strip.channel, s.alpha_slot())] : C(0);
  UNROLL
  for (int i = 0; i < K * span; i++) sum[i / span][i % span] = start;
  const RowReader read(s, strip, strip.column - pad);
  T next[reach];
  read(x, 0, 0, next);
  for (int r = 0; r < int(s.height) + pad; r++) {
    C in[reach], before[span] = {};
    UNROLL
    for (int k = 0; k < reach; k++) in[k] = C(next[k]);
    read(x, r + 1, 0, next);
    const bool made = r >= pad && real;   // row r - pad is
    const int64_t at = s.index(strip.image, r - pad, strip.column, strip.channel);
    UNROLL
    for (int k = 0; k < span; k++)
      if (made && strip.column + k < s.width) before[k] = store.before(at + k * s.channels);
    UNROLL
    for (int i = 0; i < K; i++)
      UNROLL
      for (int k = 0; k < span; k++) {
        C value = i + 1 < K ? sum[i + 1 < K ? i + 1 : 0][k] : start;
        UNROLL
        for (int j = 0; j < K; j++) value += weight[K - 1 - i][j] * in[k + j];
        sum[i][k] = value;
      }
    UNROLL
    for (int k = 0; k < span; k++)
      if (made && strip.column + k < s.width) store(at + k * s.channels, sum[0][k], factor, before[k]);
  }
}

// sum_j += sum over k of x_k g_{k + K - 1 - j}: the products of a row of x with what its convolution's gradient has K - 1 - j places further on.
// x [span], 32 numbers from one to the next.
template <int K, class C> DEVICE void add_products(const C* x, const C (&g)[span + K - 1], C (&sum)[K]) {
  UNROLL
  for (int k = 0; k < span; k++) {
    const C factor = x[k * 32];
    UNROLL
    for (int j = 0; j < K; j++) sum[j] += factor * g[k + K - 1 - j];
  }
}

// The rows move up by one; then, with a g, sum[i]_k += sum over j of weight[i, K - 1 - j] g_{k + j}; weight [K, K], 32 numbers from one to the next.
template <bool add, int K, class C> DEVICE void move_and_add(const C* weight, const C (&g)[span + K - 1], C (&sum)[K][span]) {
  UNROLL
  for (int i = 0; i < K; i++) {
    C value[span];
    UNROLL
    for (int k = 0; k < span; k++) value[k] = i + 1 < K ? sum[i + 1 < K ? i + 1 : 0][k] : C(0);
    UNROLL
    for (int j = 0; add && j < K; j++) {
      const C factor = weight[(i * K + K - 1 - j) * 32];
      UNROLL
      for (int k = 0; k < span; k++) value[k] += factor * g[k + j];
    }
    UNROLL
    for (int k = 0; k < span; k++) sum[i][k] = value[k];
  }
}

// Both gradients in one walk: row r of g, what came through the gelu, goes into the rows r - pad .. r + pad of dx, which lie in registers, and meets
// the same rows of x, which lie in a ring in shared memory, each lane's own; the last of them arrives while the others are used. A lane keeps the
// sums of all taps of its channel while it walks through the strips of its warp; then they take the ring's place and the warps are added in order.
// Grid [groups, channel groups].
template <int K, bool through_gelu, class T>
KERNEL __launch_bounds__(32 * strip_warps, 2)
strips_backward_kernel(Sizes s, Wanted wanted, Gradient<T, through_gelu> load, const T* x, const Compute<T>* packed, DropFactor drop, Store<T> store,
                       Compute<T>* partial) {
  using C = Compute<T>;
  constexpr int pad = K / 2, reach = span + K - 1, taps = K * K, slots = taps + 2;
  const int64_t channel = int64_t(blockIdx.y) * 32 + threadIdx.x, strips = Strip::count(s);
  const int lane = int(threadIdx.x), end = int((blockIdx.x + 1) * strips / gridDim.x), height = int(s.height);
  const bool real = channel < s.channels;
  C *weight = dynamic_shared<C>() + lane, *all = weight + taps * 32;   // [taps, 32], [strip_warps, slots, 32]
  C* mine = all + int(threadIdx.y) * slots * 32;                          // a ring [K, span, 32], then sums [slots, 32]
  for (int i = int(threadIdx.y); i < taps; i += strip_warps) weight[i * 32] = real ? packed[s.packed(channel, i)] : C(0);
  const C alpha = real ? packed[s.packed(channel, s.alpha_slot())] : C(0);
  __syncthreads();
  C tap_sum[K][K] = {}, bias_sum = 0, alpha_sum = 0;
  for (int n = int(blockIdx.x * strips / gridDim.x + threadIdx.y); n < end; n += strip_warps) {
    const Strip strip(s, n, channel);
    const C keep = C(drop.of_sample(strip.image)), factor = keep * alpha;
    const RowReader read(s, strip, strip.column - pad);
    C sum[K][span] = {}, branch = 0;
    for (int i = 0; i < K * span; i++) mine[i * 32] = 0;
    T next_dy[reach], next_pre[reach];
    read(load.dy, -pad, 0, next_dy);
    if constexpr (through_gelu) read(load.pre, -pad, 0, next_pre);
    int newest = 0;   // in the ring: row r + pad of x
    for (int r = -pad; r < height + pad; r++, newest = newest + 1 < K ? newest + 1 : 0) {
      const bool inside = r >= 0 && r < height, made = wanted.dx && r >= pad && real;   // row r of the map, row r - pad of dx
      const int64_t at = s.index(strip.image, r - pad, strip.column, channel);
      C in[reach] = {}, before[span] = {}, elsewhere = 0;
      if (inside) {
        UNROLL
        for (int k = 0; k < reach; k++) {
          const bool own = k >= pad && k < pad + span;
          in[k] = Gradient<T, through_gelu>::of(C(next_dy[k]), through_gelu ? C(next_pre[k]) : C(0), factor, own ? branch : elsewhere);
        }
      }
      UNROLL
      for (int k = 0; k < span; k++)
        if (made && strip.column + k < s.width) before[k] = store.before(at + k * s.channels);
      if (inside) move_and_add<true>(weight, in, sum);
      else move_and_add<false>(weight, in, sum);
      UNROLL
      for (int k = 0; k < span; k++)
        if (made && strip.column + k < s.width) store(at + k * s.channels, sum[0][k], factor, before[k]);
      read(load.dy, r + 1, 0, next_dy);
      if constexpr (through_gelu) read(load.pre, r + 1, 0, next_pre);
      if (!wanted.sums) continue;
      T arriving[span];
      read(x, r + pad, pad, arriving);
      if (inside) {
        UNROLL
        for (int k = 0; k < span; k++) bias_sum += in[pad + k];
        UNROLL
        for (int i = 0; i + 1 < K; i++) add_products(mine + (newest + 1 + i < K ? newest + 1 + i : newest + 1 + i - K) * span * 32, in, tap_sum[i]);
      }
      UNROLL
      for (int k = 0; k < span; k++) mine[(newest * span + k) * 32] = C(arriving[k]);
      if (inside) add_products(mine + newest * span * 32, in, tap_sum[K - 1]);
    }
    alpha_sum += keep * branch;
  }
  if (!wanted.sums) return;
  UNROLL
  for (int i = 0; i < slots; i++)
    mine[i * 32] = i < taps ? tap_sum[i < taps ? i / K : 0][i % K] : i == taps ? bias_sum : alpha_sum;
  __syncthreads();
  if (!real) return;
  for (int i = int(threadIdx.y); i < slots; i += strip_warps) {
    C total = 0;
    for (int w = 0; w < strip_warps; w++) total += all[(w * slots + i) * 32];
    partial[blockIdx.x * s.packed_size() + s.packed(channel, i)] = total;
  }
}

template <int K, class T, class S> void strips_convolve(const Sizes& s, const T* x, const Compute<T>* packed, const DropFactor& drop, const S& store) {
  const int64_t blocks = (Strip::count(s) + strip_warps - 1) / strip_warps * ((s.channels + 31) / 32);
  launch({dim3(unsigned(blocks)), dim3(32, strip_warps)}, strips_convolve_kernel<K, T, S>, s, x, packed, drop, store);
}

// Groups of strips that sum apart: two blocks for each of 132 multiprocessors where there is work for so many.
inline int64_t strips_groups(const Sizes& s) {
  return std::clamp<int64_t>(Strip::count(s) / strip_warps, 1, std::max<int64_t>(1, 264 / ((s.channels + 31) / 32)));
}

template <int K, bool through_gelu, class T>
void strips_backward(const Sizes& s, Wanted wanted, const Gradient<T, through_gelu>& load, const T* x, const Compute<T>* packed, const DropFactor& drop,
                     const Store<T>& store, Compute<T>* partial) {
  constexpr int taps = K * K, slots = taps + 2;
  const dim3 grid(unsigned(strips_groups(s)), unsigned((s.channels + 31) / 32));
  launch({grid, dim3(32, strip_warps), size_t((taps + strip_warps * slots) * 32) * sizeof(Compute<T>)}, strips_backward_kernel<K, through_gelu, T>, s,
         wanted, load, x, packed, drop, store, partial);
}

}  // namespace depthwise
