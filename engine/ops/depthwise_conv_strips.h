// depthwise_conv_strips.h: depthwise convolution on CUDA with a K known to the compiler, 7 for LipsFormer. A warp walks down a strip of
// `span` columns of one image for 32 channels, one a lane. Each number of x is read once a strip and multiplied K * span times from
// registers: f32 arithmetic sets the pace, not shared memory.
#pragma once
#include "engine/kernel.h"
#include "engine/ops/depthwise_conv.h"

namespace depthwise {

constexpr int strip_warps = 4;   // a block

// Where a warp works: its image, its first column, and its lane's channel.
struct Strip {
  int64_t image, column, channel;
  HD Strip(const Sizes& s, int64_t strip, int64_t channel)
      : image(strip / s.spans(s.width)), column(strip % s.spans(s.width) * span), channel(channel) {}
  HD static int64_t count(const Sizes& s) { return s.batch * s.spans(s.width); }
};

// Reads `count` neighbouring numbers of a row, from column `first` on; 0 outside of the map.
template <int count, class T> struct RowReader {
  const T* x;        // row 0, column `first`
  int a_column, a_row, rows;
  unsigned inside;   // bit k: column first + k lies in the map
  DEVICE RowReader(const T* x, int a_column, int a_row, int rows, unsigned inside)
      : x(x), a_column(a_column), a_row(a_row), rows(rows), inside(inside) {}
  DEVICE RowReader(const Sizes& s, const Strip& strip, const T* x, int64_t first)
      : x(x + s.index(strip.image, 0, first, strip.channel)),
        a_column(int(s.channels)), a_row(int(s.width * s.channels)), rows(int(s.height)), inside(0) {
    for (int k = 0; k < count; k++)
      inside |= unsigned(first + k >= 0 && first + k < s.width && strip.channel < s.channels) << k;
  }
  DEVICE void operator()(int row, T (&to)[count]) const {
    const unsigned wanted = row >= 0 && row < rows ? inside : 0;
    const T* from = x + int64_t(row) * a_row;
    UNROLL
    for (int k = 0; k < count; k++) to[k] = wanted >> k & 1 ? from[k * a_column] : T(0.0f);
  }
};

// Row r of x goes into the rows r - pad .. r + pad of y: sum[i] is row r - pad + i, and with each r the rows move up by one.
// Grid [strips / strip_warps * channel groups], block [32, strip_warps].
template <int K, class T, class S>
KERNEL __launch_bounds__(32 * strip_warps, 3) strips_convolve_kernel(Sizes s, const T* x, const Compute<T>* packed, bool flip, S store) {
  using C = Compute<T>;
  constexpr int pad = K / 2, reach = span + K - 1;
  const int64_t groups = (s.channels + 31) / 32, number = blockIdx.x / groups * strip_warps + threadIdx.y;
  if (number >= Strip::count(s)) return;
  const Strip strip(s, number, int64_t(blockIdx.x % groups) * 32 + threadIdx.x);
  const bool real = strip.channel < s.channels;
  C weight[K][K], sum[K][span];
  UNROLL
  for (int i = 0; i < K * K; i++) weight[i / K][i % K] = real ? packed[s.packed(strip.channel, flip ? K * K - 1 - i : i)] : C(0);
  const C start = real && !flip ? packed[s.packed(strip.channel, K * K)] : C(0);
  UNROLL
  for (int i = 0; i < K * span; i++) sum[i / span][i % span] = start;
  const RowReader<reach, T> read(s, strip, x, strip.column - pad);
  T next[reach];
  read(0, next);
  for (int r = 0; r < int(s.height) + pad; r++) {
    C in[reach];
    UNROLL
    for (int k = 0; k < reach; k++) in[k] = C(next[k]);
    read(r + 1, next);
    UNROLL
    for (int i = 0; i < K; i++)
      UNROLL
      for (int k = 0; k < span; k++) {
        C value = i + 1 < K ? sum[i + 1 < K ? i + 1 : 0][k] : start;
        UNROLL
        for (int j = 0; j < K; j++) value += weight[K - 1 - i][j] * in[k + j];
        sum[i][k] = value;
      }
    if (r < pad || !real) continue;
    const int64_t at = s.index(strip.image, r - pad, strip.column, strip.channel);
    UNROLL
    for (int k = 0; k < span; k++)
      if (strip.column + k < s.width) store(at + k * s.channels, sum[0][k]);
  }
}

// sum_j += sum over k of out_k in_{k + j}.
template <int K, class C> DEVICE void add_products(const C (&out)[span], const C (&in)[span + K - 1], C (&sum)[K]) {
  UNROLL
  for (int j = 0; j < K; j++)
    UNROLL
    for (int k = 0; k < span; k++) sum[j] += out[k] * in[k + j];
}

// Row r of x meets the rows r - pad .. r + pad of dy, which lie in out[0 .. K); the last of them arrives while the others are used.
// A lane keeps the sums of all taps of its channel while it walks through the strips of its warp; then the warps are added in order.
// Grid [groups, channel groups].
template <int K, class T>
KERNEL __launch_bounds__(32 * strip_warps, 3) strips_sums_kernel(Sizes s, const T* dy, const T* x, Compute<T>* partial) {
  using C = Compute<T>;
  constexpr int pad = K / 2, reach = span + K - 1, taps = K * K;
  const int64_t channel = int64_t(blockIdx.y) * 32 + threadIdx.x, strips = Strip::count(s);
  const int end = int((blockIdx.x + 1) * strips / gridDim.x);
  C sum[K][K] = {}, bias = 0;
  for (int n = int(blockIdx.x * strips / gridDim.x + threadIdx.y); n < end; n += strip_warps) {
    const Strip strip(s, n, channel);
    const RowReader<reach, T> read_x(s, strip, x, strip.column - pad);
    const RowReader<span, T> read_dy{dy + s.index(strip.image, 0, strip.column, channel), read_x.a_column, read_x.a_row, read_x.rows,
                                     read_x.inside >> pad & ((1u << span) - 1)};
    C out[K][span] = {};
    T next[reach];
    read_x(-pad, next);
    for (int r = -pad; r < int(s.height); r++) {
      C in[reach];
      UNROLL
      for (int k = 0; k < reach; k++) in[k] = C(next[k]);
      UNROLL
      for (int i = 0; i + 1 < K; i++)
        UNROLL
        for (int k = 0; k < span; k++) out[i][k] = out[i + 1][k];
      T arriving[span];
      read_dy(r + pad, arriving);
      read_x(r + 1, next);
      if (r >= 0) {
        UNROLL
        for (int i = 1; i < K; i++) add_products(out[K - 1 - i], in, sum[i]);
      }
      UNROLL
      for (int k = 0; k < span; k++) bias += out[K - 1][k] = C(arriving[k]);
      if (r >= 0) add_products(out[K - 1], in, sum[0]);
    }
  }
  C* all = dynamic_shared<C>();   // [strip_warps, taps + 1, 32]
  UNROLL
  for (int i = 0; i <= taps; i++) all[(threadIdx.y * (taps + 1) + i) * 32 + threadIdx.x] = i < taps ? sum[i < taps ? i / K : 0][i % K] : bias;
  __syncthreads();
  if (channel >= s.channels) return;
  for (int i = threadIdx.y; i <= taps; i += strip_warps) {
    C total = 0;
    for (int w = 0; w < strip_warps; w++) total += all[(w * (taps + 1) + i) * 32 + threadIdx.x];
    partial[blockIdx.x * s.packed_size() + s.packed(channel, i)] = total;
  }
}

template <int K, class T, class S>
void strips_convolve(const Sizes& s, const T* x, const Compute<T>* packed, bool flip, const S& store) {
  const int64_t blocks = (Strip::count(s) + strip_warps - 1) / strip_warps * ((s.channels + 31) / 32);
  launch({dim3(unsigned(blocks)), dim3(32, strip_warps)}, strips_convolve_kernel<K, T, S>, s, x, packed, flip, store);
}

// Groups of strips that sum apart: three blocks for each of 132 multiprocessors where there is work for so many.
inline int64_t strips_groups(const Sizes& s) {
  return std::clamp<int64_t>(Strip::count(s) / strip_warps, 1, std::max<int64_t>(1, 396 / ((s.channels + 31) / 32)));
}

template <int K, class T> void strips_sums(const Sizes& s, const T* dy, const T* x, Compute<T>* partial) {
  const dim3 grid(unsigned(strips_groups(s)), unsigned((s.channels + 31) / 32));
  launch({grid, dim3(32, strip_warps), size_t(strip_warps * (K * K + 1) * 32) * sizeof(Compute<T>)}, strips_sums_kernel<K, T>, s, dy, x, partial);
}

}  // namespace depthwise
