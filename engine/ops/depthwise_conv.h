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
  // Weights, biases and their gradients as [blocks, taps + 1, block]: the taps of a channel, then its bias.
  HD int64_t packed(int64_t channel, int64_t tap) const {
    return (channel / block * (taps() + 1) + tap) * block + channel % block;
  }
  HD int64_t packed_size() const { return blocks() * (taps() + 1) * block; }
  int64_t macs() const { return batch * height * width * channels * taps(); }
};

template <class T> struct Load {
  const T* x;
  HD Compute<T> operator()(int64_t i) const { return Compute<T>(x[i]); }
  void fetch(int64_t i) const { fetch_to_read(x + i); }
};

// The gradient before the gelu, made from the one behind it while a tile is filled.
template <class T> struct LoadThroughGelu {
  const T *dy, *pre;
  HD Compute<T> operator()(int64_t i) const { return Compute<T>(dy[i]) * gelu_slope(Compute<T>(pre[i])); }
  void fetch(int64_t i) const { fetch_to_read(dy + i), fetch_to_read(pre + i); }
};

template <class T> struct Store {
  T* y;
  HD void operator()(int64_t i, Compute<T> value) const { y[i] = T(value); }
  void fetch(int64_t i) const { fetch_to_write(y + i); }
};

template <class T> struct StoreSum {
  T* y;
  HD void operator()(int64_t i, Compute<T> value) const { y[i] = T(Compute<T>(y[i]) + value); }
  void fetch(int64_t i) const { fetch_to_write(y + i); }
};

template <class T> struct StoreGelu {
  T* y;
  HD void operator()(int64_t i, Compute<T> value) const { y[i] = T(gelu_value(value)); }
  void fetch(int64_t i) const { fetch_to_write(y + i); }
};

template <class T> struct StoreGeluAndPre {
  T *y, *pre;
  HD void operator()(int64_t i, Compute<T> value) const {
    pre[i] = T(value);
    y[i] = T(gelu_value(value));
  }
  void fetch(int64_t i) const { fetch_to_write(y + i), fetch_to_write(pre + i); }
};

}  // namespace depthwise
