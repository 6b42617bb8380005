// depthwise_conv.h: what the CPU tiles and the CUDA kernels share: sizes, the packed layout, loads and stores.
#pragma once
#include <cstdint>

#include "engine/dtype.h"
#include "engine/math.h"

namespace depthwise {

// Asks for the cache line of *p. The lines of one channel block lie C numbers apart, which no hardware foresees.
template <class T> void fetch_to_read(const T* p) { __builtin_prefetch(p); }
template <class T> void fetch_to_write(const T* p) { __builtin_prefetch(p, 1); }

constexpr int block = 16;   // channels that are packed together: one cache line of floats
constexpr int span = 7;     // neighbouring outputs of a row that share their loads

struct Sizes {
  int64_t batch, height, width, channels;
  int kernel;
  HD int pad() const { return kernel / 2; }
  HD int taps() const { return kernel * kernel; }
  HD int64_t blocks() const { return (channels + block - 1) / block; }
  HD int64_t spans(int64_t n) const { return (n + span - 1) / span; }
  HD int64_t index(int64_t image, int64_t row, int64_t column, int64_t channel) const {
    return ((image * height + row) * width + column) * channels + channel;
  }
  // What a channel has, and the gradients of it, as [blocks, slots, block]: its taps, its bias, the factor of its branch.
  HD int bias_slot() const { return taps(); }
  HD int alpha_slot() const { return taps() + 1; }
  HD int slots() const { return taps() + 2; }
  HD int64_t packed(int64_t channel, int64_t slot) const { return (channel / block * slots() + slot) * block + channel % block; }
  HD int64_t packed_size() const { return blocks() * slots() * block; }
  int64_t macs() const { return batch * height * width * channels * taps(); }
};

// What a backward is to make.
struct Wanted {
  bool dx, sums;
};

template <class T> struct Load {
  const T* x;
  HD Compute<T> operator()(int64_t i) const { return Compute<T>(x[i]); }
  HD Compute<T> operator()(int64_t i, Compute<T>, Compute<T>&) const { return (*this)(i); }
  void fetch(int64_t i) const { fetch_to_read(x + i); }
};

// The gradient of the convolution's values, made from that of y = factor gelu(value) where there is a gelu. Adds y / factor times the gradient to
// `branch`, for the gradient of the factor.
template <class T, bool through_gelu> struct Gradient {
  const T *dy, *pre;   // pre: the values; only with a gelu
  static HD Compute<T> of(Compute<T> dy, Compute<T> pre, Compute<T> factor, Compute<T>& branch) {
    if constexpr (!through_gelu) return dy;
    const GeluAndSlope<Compute<T>> gelu = gelu_and_slope(pre);
    branch += dy * gelu.value;
    return factor * dy * gelu.slope;
  }
  HD Compute<T> operator()(int64_t i, Compute<T> factor, Compute<T>& branch) const {
    if constexpr (through_gelu) return of(Compute<T>(dy[i]), Compute<T>(pre[i]), factor, branch);
    else return Compute<T>(dy[i]);
  }
  void fetch(int64_t i) const {
    fetch_to_read(dy + i);
    if constexpr (through_gelu) fetch_to_read(pre + i);
  }
};

// What becomes of a value of the convolution. On a device `before` is read long before the value is there; the CPU hands over a block of values, so
// that all choices stand outside of its loops.
// y = value + what stood in y if `add` + skip * base if there is one.
template <class T> struct Store {
  T* y;
  bool add = false;
  const T* base = nullptr;
  Compute<T> skip = 0;
  HD Compute<T> before(int64_t i) const { return (add ? Compute<T>(y[i]) : Compute<T>(0)) + (base ? skip * Compute<T>(base[i]) : Compute<T>(0)); }
  HD void operator()(int64_t i, Compute<T> value, Compute<T>, Compute<T> before) const { y[i] = T(before + value); }
  void put_block(int64_t i, const Compute<T> (&values)[block], const Compute<T> (&)[block]) const {
    Compute<T> sum[block] = {};
    if (add)
      for (int c = 0; c < block; c++) sum[c] = Compute<T>(y[i + c]);
    if (base)
      for (int c = 0; c < block; c++) sum[c] += skip * Compute<T>(base[i + c]);
    for (int c = 0; c < block; c++) y[i + c] = T(sum[c] + values[c]);
  }
  void fetch(int64_t i) const {
    fetch_to_write(y + i);
    if (base) fetch_to_read(base + i);
  }
};

// y = factor gelu(value) + skip * base if there is one; keeps the value if there is a place for it.
template <class T> struct StoreGelu {
  T *y, *pre;
  const T* base = nullptr;
  Compute<T> skip = 0;
  HD Compute<T> before(int64_t i) const { return base ? skip * Compute<T>(base[i]) : Compute<T>(0); }
  HD void operator()(int64_t i, Compute<T> value, Compute<T> factor, Compute<T> before) const {
    if (pre) pre[i] = T(value);
    y[i] = T(before + factor * gelu_value(value));
  }
  void put_block(int64_t i, const Compute<T> (&values)[block], const Compute<T> (&factor)[block]) const {
    Compute<T> sum[block] = {};
    if (pre)
      for (int c = 0; c < block; c++) pre[i + c] = T(values[c]);
    if (base)
      for (int c = 0; c < block; c++) sum[c] = skip * Compute<T>(base[i + c]);
    for (int c = 0; c < block; c++) sum[c] += factor[c] * gelu_value(values[c]);
    for (int c = 0; c < block; c++) y[i + c] = T(sum[c]);
  }
  void fetch(int64_t i) const {
    fetch_to_write(y + i);
    if (pre) fetch_to_write(pre + i);
  }
};

}  // namespace depthwise
