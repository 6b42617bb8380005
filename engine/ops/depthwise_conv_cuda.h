// depthwise_conv_cuda.h: depthwise convolution on CUDA: strips for 7 x 7, and for all other kernels and for f64 what is here, a block for
// 7 x 7 outputs of 32 channels, one a lane.
#pragma once
#include <algorithm>

#include "engine/kernel.h"
#include "engine/ops/depthwise_conv.h"
#include "engine/ops/depthwise_conv_strips.h"

namespace depthwise {

constexpr int lanes = 32;

// A square of the map: which image it lies in and where it begins.
struct Square {
  int64_t image, row, column;
  HD Square(const Sizes& s, int64_t number) {
    const int64_t across = s.spans(s.width), down = s.spans(s.height);
    image = number / (across * down);
    row = number / across % down * span;
    column = number % across * span;
  }
  HD static int64_t count(const Sizes& s) { return s.batch * s.spans(s.width) * s.spans(s.height); }
};

// Copies the square and `margin` numbers on each side to to[(span + 2 margin)^2, lanes]; zero outside of the image.
template <class C, class F>
DEVICE void load_square(const Sizes& s, const Square& at, int64_t channel, int margin, const F& load, C* to) {
  const int side = span + 2 * margin;
  for (int i = threadIdx.y; i < side * side; i += blockDim.y) {
    const int64_t row = at.row + i / side - margin, column = at.column + i % side - margin;
    const bool inside = row >= 0 && row < s.height && column >= 0 && column < s.width && channel < s.channels;
    to[i * lanes + threadIdx.x] = inside ? load(s.index(at.image, row, column, channel)) : C(0);
  }
}

// Grid [squares, channel groups], block [lanes, span]: a thread makes a row of the square for its channel.
template <class C, class L, class S> KERNEL convolve_kernel(Sizes s, L load, const C* packed, bool flip, S store) {
  const int side = span + 2 * s.pad(), taps = s.taps();
  C* tile = dynamic_shared<C>();
  C* weights = tile + side * side * lanes;
  const Square at(s, blockIdx.x);
  const int64_t channel = int64_t(blockIdx.y) * lanes + threadIdx.x;
  const bool real = channel < s.channels;
  load_square(s, at, channel, s.pad(), load, tile);
  for (int i = threadIdx.y; i < taps; i += blockDim.y)
    weights[i * lanes + threadIdx.x] = real ? packed[s.packed(channel, flip ? taps - 1 - i : i)] : C(0);
  __syncthreads();
  C sum[span];
  const C start = real && !flip ? packed[s.packed(channel, taps)] : C(0);
  for (int k = 0; k < span; k++) sum[k] = start;
  for (int i = 0; i < s.kernel; i++)
    for (int j = 0; j < s.kernel; j++) {
      const C weight = weights[(i * s.kernel + j) * lanes + threadIdx.x];
      const C* x = tile + ((threadIdx.y + i) * side + j) * lanes + threadIdx.x;
      for (int k = 0; k < span; k++) sum[k] += weight * x[k * lanes];
    }
  const int64_t row = at.row + threadIdx.y;
  if (!real || row >= s.height) return;
  for (int k = 0; k < span; k++)
    if (at.column + k < s.width) store(s.index(at.image, row, at.column + k, channel), sum[k]);
}

// Whether the strips take it.
template <class T> constexpr bool can_strip = sizeof(T) <= 4;
template <class T> bool strips(const Sizes& s) { return can_strip<T> && s.kernel == 7; }

template <class T, class S> void convolve_cuda(const Sizes& s, const T* x, const Compute<T>* packed, bool flip, const S& store) {
  using C = Compute<T>;
  if constexpr (can_strip<T>)
    if (strips<T>(s)) return strips_convolve<7>(s, x, packed, flip, store);
  const int side = span + 2 * s.pad();
  const size_t shared = size_t(side * side + s.taps()) * lanes * sizeof(C);
  const dim3 grid(unsigned(Square::count(s)), unsigned((s.channels + lanes - 1) / lanes));
  launch({grid, dim3(lanes, span), shared}, convolve_kernel<C, Load<T>, S>, s, Load<T>{x}, packed, flip, store);
}

// Grid [groups, channel groups], block [lanes, 8]: the block walks through its squares in order and each thread keeps
// the sums of its own taps, so that no two threads ever add to the same number. Tap number `taps` is the bias.
template <class C, class L, class X> KERNEL sums_kernel(Sizes s, L load_dy, X load_x, C* partial) {
  const int side = span + 2 * s.pad(), taps = s.taps();
  C* x = dynamic_shared<C>();
  C* dy = x + side * side * lanes;
  C* sums = dy + span * span * lanes;
  const int64_t channel = int64_t(blockIdx.y) * lanes + threadIdx.x;
  for (int i = threadIdx.y; i <= taps; i += blockDim.y) sums[i * lanes + threadIdx.x] = 0;
  const int64_t squares = Square::count(s);
  for (int64_t n = blockIdx.x * squares / gridDim.x; n < (blockIdx.x + 1) * squares / gridDim.x; n++) {
    const Square at(s, n);
    load_square(s, at, channel, s.pad(), load_x, x);
    load_square(s, at, channel, 0, load_dy, dy);
    __syncthreads();
    for (int i = threadIdx.y; i <= taps; i += blockDim.y) {
      const C* shifted = x + (i / s.kernel * side + i % s.kernel) * lanes + threadIdx.x;
      C sum = 0;
      for (int row = 0; row < span; row++)
        for (int k = 0; k < span; k++)
          sum += dy[(row * span + k) * lanes + threadIdx.x] * (i < taps ? shifted[(row * side + k) * lanes] : C(1));
      sums[i * lanes + threadIdx.x] += sum;
    }
    __syncthreads();
  }
  if (channel >= s.channels) return;
  for (int i = threadIdx.y; i <= taps; i += blockDim.y)
    partial[blockIdx.x * s.packed_size() + s.packed(channel, i)] = sums[i * lanes + threadIdx.x];
}

// A few blocks for every multiprocessor, but at least four squares for each, because its sums are as large as a square.
template <class T> int64_t gradient_groups_cuda(const Sizes& s) {
  if (strips<T>(s)) return strips_groups(s);
  return std::max<int64_t>(1, std::min(2048 / s.blocks(), Square::count(s) / 4));
}

template <class T> void sums_cuda(const Sizes& s, const T* dy, const T* x, Compute<T>* partial) {
  using C = Compute<T>;
  if constexpr (can_strip<T>)
    if (strips<T>(s)) return strips_sums<7>(s, dy, x, partial);
  const int side = span + 2 * s.pad();
  const size_t shared = size_t(side * side + span * span + s.taps() + 1) * lanes * sizeof(C);
  const dim3 grid(unsigned(gradient_groups_cuda<T>(s)), unsigned((s.channels + lanes - 1) / lanes));
  launch({grid, dim3(lanes, 8), shared}, sums_kernel<C, Load<T>, Load<T>>, s, Load<T>{dy}, Load<T>{x}, partial);
}

}  // namespace depthwise
