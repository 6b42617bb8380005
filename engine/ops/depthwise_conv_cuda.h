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

template <class C, class L> struct LoadScaled {   // what it gives with the factor of an image's channel
  const L& load;
  C factor;
  DEVICE C operator()(int64_t i) const {
    C branch = 0;
    return load(i, factor, branch);
  }
};

template <class C, class L> struct LoadBranch {   // what it adds to the branch
  const L& load;
  C keep;
  DEVICE C operator()(int64_t i) const {
    C branch = 0;
    load(i, keep, branch);
    return keep * branch;
  }
};

// Grid [squares, channel groups], block [lanes, span]: a thread makes a row of the square for its channel.
template <class C, class L, class S> KERNEL convolve_kernel(Sizes s, L load, const C* packed, bool flip, DropFactor drop, S store) {
  const int side = span + 2 * s.pad(), taps = s.taps();
  C* tile = dynamic_shared<C>();
  C* weights = tile + side * side * lanes;
  const Square at(s, blockIdx.x);
  const int64_t channel = int64_t(blockIdx.y) * lanes + threadIdx.x;
  const bool real = channel < s.channels;
  const C factor = real ? C(drop.of_sample(at.image)) * packed[s.packed(channel, s.alpha_slot())] : C(0);
  load_square(s, at, channel, s.pad(), LoadScaled<C, L>{load, factor}, tile);
  for (int i = threadIdx.y; i < taps; i += blockDim.y)
    weights[i * lanes + threadIdx.x] = real ? packed[s.packed(channel, flip ? taps - 1 - i : i)] : C(0);
  __syncthreads();
  C sum[span];
  const C start = real && !flip ? packed[s.packed(channel, s.bias_slot())] : C(0);
  for (int k = 0; k < span; k++) sum[k] = start;
  for (int i = 0; i < s.kernel; i++)
    for (int j = 0; j < s.kernel; j++) {
      const C weight = weights[(i * s.kernel + j) * lanes + threadIdx.x];
      const C* x = tile + ((threadIdx.y + i) * side + j) * lanes + threadIdx.x;
      for (int k = 0; k < span; k++) sum[k] += weight * x[k * lanes];
    }
  const int64_t row = at.row + threadIdx.y;
  if (!real || row >= s.height) return;
  for (int k = 0; k < span; k++) {
    const int64_t i = s.index(at.image, row, at.column + k, channel);
    if (at.column + k < s.width) store(i, sum[k], factor, store.before(i));
  }
}

// Whether the strips take it.
template <class T> constexpr bool can_strip = sizeof(T) <= 4;
template <class T> bool strips(const Sizes& s) { return can_strip<T> && s.kernel == 7; }

template <class C, class L, class S>
void convolve_squares(const Sizes& s, const L& load, const C* packed, bool flip, const DropFactor& drop, const S& store) {
  const int side = span + 2 * s.pad();
  const size_t shared = size_t(side * side + s.taps()) * lanes * sizeof(C);
  const dim3 grid(unsigned(Square::count(s)), unsigned((s.channels + lanes - 1) / lanes));
  launch({grid, dim3(lanes, span), shared}, convolve_kernel<C, L, S>, s, load, packed, flip, drop, store);
}

template <class T, class S> void convolve_cuda(const Sizes& s, const T* x, const Compute<T>* packed, const DropFactor& drop, const S& store) {
  if constexpr (can_strip<T>)
    if (strips<T>(s)) return strips_convolve<7>(s, x, packed, drop, store);
  convolve_squares(s, Load<T>{x}, packed, false, drop, store);
}

// Grid [groups, channel groups], block [lanes, 8]: the block walks through its squares in order and each thread keeps
// the sums of its own slots, so that no two threads ever add to the same number.
template <class C, class L, class X> KERNEL sums_kernel(Sizes s, L load_dy, X load_x, const C* packed, DropFactor drop, C* partial) {
  const int side = span + 2 * s.pad(), taps = s.taps(), slots = s.slots();
  C* x = dynamic_shared<C>();
  C* dy = x + side * side * lanes;
  C* branch = dy + span * span * lanes;
  C* sums = branch + span * span * lanes;
  const int64_t channel = int64_t(blockIdx.y) * lanes + threadIdx.x;
  const bool real = channel < s.channels;
  const C alpha = real ? packed[s.packed(channel, s.alpha_slot())] : C(0);
  for (int i = threadIdx.y; i < slots; i += blockDim.y) sums[i * lanes + threadIdx.x] = 0;
  const int64_t squares = Square::count(s);
  for (int64_t n = blockIdx.x * squares / gridDim.x; n < (blockIdx.x + 1) * squares / gridDim.x; n++) {
    const Square at(s, n);
    const C keep = C(drop.of_sample(at.image));
    load_square(s, at, channel, s.pad(), load_x, x);
    load_square(s, at, channel, 0, LoadScaled<C, L>{load_dy, keep * alpha}, dy);
    load_square(s, at, channel, 0, LoadBranch<C, L>{load_dy, keep}, branch);
    __syncthreads();
    for (int i = threadIdx.y; i < slots; i += blockDim.y) {
      const C* shifted = x + (i / s.kernel * side + i % s.kernel) * lanes + threadIdx.x;
      const C* from = (i == s.alpha_slot() ? branch : dy) + threadIdx.x;
      C sum = 0;
      for (int row = 0; row < span; row++)
        for (int k = 0; k < span; k++) sum += from[(row * span + k) * lanes] * (i < taps ? shifted[(row * side + k) * lanes] : C(1));
      sums[i * lanes + threadIdx.x] += sum;
    }
    __syncthreads();
  }
  if (!real) return;
  for (int i = threadIdx.y; i < slots; i += blockDim.y)
    partial[blockIdx.x * s.packed_size() + s.packed(channel, i)] = sums[i * lanes + threadIdx.x];
}

// A few blocks for every multiprocessor, but at least four squares for each, because its sums are as large as a square.
template <class T> int64_t gradient_groups_cuda(const Sizes& s) {
  if (strips<T>(s)) return strips_groups(s);
  return std::max<int64_t>(1, std::min(2048 / s.blocks(), Square::count(s) / 4));
}

// Partial sums [groups, packed] and dx: in one pass by strips, else in one each.
template <class T, class L>
void backward_cuda(const Sizes& s, Wanted wanted, const L& load, const T* x, const Compute<T>* packed, const DropFactor& drop, const Store<T>& store,
                   Compute<T>* partial) {
  using C = Compute<T>;
  if constexpr (can_strip<T>)
    if (strips<T>(s)) return strips_backward<7>(s, wanted, load, x, packed, drop, store, partial);
  if (wanted.dx) convolve_squares(s, load, packed, true, drop, store);
  if (!wanted.sums) return;
  const int side = span + 2 * s.pad();
  const size_t shared = size_t(side * side + 2 * span * span + s.slots()) * lanes * sizeof(C);
  const dim3 grid(unsigned(gradient_groups_cuda<T>(s)), unsigned((s.channels + lanes - 1) / lanes));
  launch({grid, dim3(lanes, 8), shared}, sums_kernel<C, L, Load<T>>, s, load, Load<T>{x}, packed, drop, partial);
}

}  // namespace depthwise
