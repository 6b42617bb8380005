// window_attention.h: what the CPU path and the kernels of window_attention share: where tokens lie, who may see whom, how rows are
// normalised.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "engine/dtype.h"
#include "engine/ops.h"

// A map of height x width tokens, rolled by -shift and cut into squares. Windows are counted over the batch in raster order.
struct AttentionShape {
  int64_t batch;
  int height, width, window, shift, heads, dim;
  Similarity similarity;
  double logit_scale, value_scale, eps;

  HD int tokens() const { return window * window; }
  HD int columns() const { return width / window; }
  HD int windows_a_map() const { return height / window * columns(); }
  HD int64_t windows() const { return batch * windows_a_map(); }
  HD int channels() const { return heads * dim; }
  HD int relative_positions() const { return (2 * window - 1) * (2 * window - 1); }

  // The window's first row and column in the rolled map.
  HD int top(int64_t w) const { return int(w % windows_a_map()) / columns() * window; }
  HD int left(int64_t w) const { return int(w % windows_a_map()) % columns() * window; }
  // The token of the real map that stands at (y, x) of the rolled one.
  HD int64_t token(int64_t w, int y, int x) const {
    const int real_y = y + shift < height ? y + shift : y + shift - height;
    const int real_x = x + shift < width ? x + shift : x + shift - width;
    return (w / windows_a_map() * height + real_y) * width + real_x;
  }
  // Rolling brings far ends of the map together in the last windows; tokens of different regions must not see each other.
  HD bool masked(int64_t w) const { return shift > 0 && (top(w) + window == height || left(w) + window == width); }
  HD int region(int y, int x) const { return 3 * band(y, height) + band(x, width); }
  HD int band(int y, int size) const { return y < size - window ? 0 : (y < size - shift ? 1 : 2); }
  // Row of the bias table for query i and key j of a window.
  HD int relative(int i, int j) const {
    return (i / window - j / window + window - 1) * (2 * window - 1) + i % window - j % window + window - 1;
  }
};
constexpr double masked_logit = -100;

// x^ = inverse x, and back: dx = inverse (dx^ - along x^ (x^ . dx^)).
template <class C> struct RowScale { C inverse, along; };

template <class C> HD RowScale<C> row_scale(Similarity similarity, C square, double eps) {
  if (similarity == Similarity::dot) return {C(1), C(0)};
  if (similarity == Similarity::cosine_bounded) return {C(1) / std::sqrt(square + C(eps)), C(1)};
  const C norm = std::sqrt(square), least = C(1e-12);
  if (norm > least) return {C(1) / norm, C(1)};
  return {C(1) / least, C(0)};
}
// Values are normalised in the bounded form only.
HD Similarity value_similarity(Similarity s) { return s == Similarity::cosine_bounded ? s : Similarity::dot; }

// Backward sums the bias gradient within chunks of consecutive windows, then the chunks in order. Their number depends on nothing but
// the number of windows, and so do the results.
constexpr int64_t most_chunks_cpu = 32;
inline int64_t attention_chunks(int64_t windows, int64_t most) { return std::clamp<int64_t>(windows / 16, 1, most); }

template <class T> struct AttentionForward {
  AttentionShape shape;
  const T* qkv;                // [B, H, W, 3, heads, d]
  const Compute<T>* bias;      // [heads, relative positions], or null
  T* out;                      // [B, H, W, heads, d]
  Compute<T>* log_sum;         // [windows, heads, tokens]: log of the sum of exp over a row of logits
  Compute<T>* entropy;         // [windows, heads]: summed over the rows
};

template <class T> struct AttentionBackward {
  AttentionShape shape;
  const T* qkv;
  const Compute<T>* bias;
  const Compute<T>* log_sum;
  const T* dout;
  T* dqkv;                     // null: not wanted
  bool add;                    // to what is in dqkv
  Compute<T>* dbias;           // [chunks, heads, relative positions], or null
  int64_t chunks;              // of consecutive windows; each sums its own dbias
};

template <class T> void window_attention_cpu(const AttentionForward<T>& call);
template <class T> void window_attention_cpu(const AttentionBackward<T>& call);
