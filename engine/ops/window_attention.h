// window_attention.h: what the CPU path and the kernels of window_attention share: where tokens lie, who may see whom, how rows are
// normalised.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "engine/dtype.h"
#include "engine/kernel.h"
#include "engine/ops.h"

constexpr int lepe_taps = 9, lepe_sums = lepe_taps + 1;   // a channel: of its 3 x 3 kernel; with its bias

// A map of height x width tokens, rolled by -shift and cut into windows, for some of the heads: all of them, or one half where each half
// has windows of its own. Windows are counted over the batch in raster order.
struct AttentionShape {
  int64_t batch;
  int height, width, window_height, window_width, shift;
  int first_head, heads, dim;
  int channels, stride;                  // from token to token: of out and of q, k, v
  Similarity similarity;
  bool causal;
  double logit_scale, value_scale, eps;  // l2 is written logit_scale (q k - |k|^2 / 2)
  bool lepe;                             // a convolution of the values, as they are before they are normalised, is added

  HD int tokens() const { return window_height * window_width; }
  HD int columns() const { return width / window_width; }
  HD int windows_a_map() const { return height / window_height * columns(); }
  HD int64_t windows() const { return batch * windows_a_map(); }
  HD int relative_positions() const { return (2 * window_height - 1) * (2 * window_width - 1); }
  int64_t rows() const { return windows() * heads * tokens(); }   // queries
  int64_t part_size() const { return rows() * dim; }              // of q, k, v and out each
  int64_t product_macs() const { return windows() * heads * dim * visible_pairs(); }   // of each of the products of two of them
  int64_t lepe_macs() const { return lepe ? part_size() * lepe_taps : 0; }
  int64_t visible_pairs() const { return causal ? int64_t(tokens()) * (tokens() + 1) / 2 : int64_t(tokens()) * tokens(); }

  // The window's first row and column in the rolled map.
  HD int top(int64_t w) const { return int(w % windows_a_map()) / columns() * window_height; }
  HD int left(int64_t w) const { return int(w % windows_a_map()) % columns() * window_width; }
  // The token of the real map that stands at (y, x) of the rolled one.
  HD int64_t token(int64_t w, int y, int x) const {
    const int real_y = y + shift < height ? y + shift : y + shift - height;
    const int real_x = x + shift < width ? x + shift : x + shift - width;
    return (w / windows_a_map() * height + real_y) * width + real_x;
  }
  HD int64_t token(int64_t w, int i) const { return token(w, top(w) + i / window_width, left(w) + i % window_width); }
  // Rolling brings far ends of the map together in the last windows; tokens of different regions must not see each other.
  HD bool masked(int64_t w) const { return shift > 0 && (top(w) + window_height == height || left(w) + window_width == width); }
  HD int region(int64_t w, int i) const {
    return 3 * band(top(w) + i / window_width, height, window_height) + band(left(w) + i % window_width, width, window_width);
  }
  // f(t, to) for each tap t of LePE that sees a token of the window from the one at (y, x): `to` tokens behind it.
  template <class F> DEVICE void each_tap(int y, int x, F&& f) const {
    UNROLL for (int t = 0; t < lepe_taps; t++) {
      const int down = t / 3 - 1, right = t % 3 - 1;
      if (unsigned(y + down) < unsigned(window_height) && unsigned(x + right) < unsigned(window_width)) f(t, down * window_width + right);
    }
  }
  HD int band(int y, int size, int window) const { return y < size - window ? 0 : (y < size - shift ? 1 : 2); }
  // Row of the bias table for query i and key j of a window.
  HD int relative(int i, int j) const {
    const int dy = i / window_width - j / window_width, dx = i % window_width - j % window_width;
    return (dy + window_height - 1) * (2 * window_width - 1) + dx + window_width - 1;
  }
};
constexpr double masked_logit = -100;

// x^ = inverse x, and back: dx = inverse (dx^ - along x^ (x^ . dx^)).
template <class C> struct RowScale { C inverse, along; };

HD bool normalises(Similarity s) { return s == Similarity::cosine || s == Similarity::cosine_bounded; }
template <class C> HD RowScale<C> row_scale(Similarity similarity, C square, double eps) {
  if (!normalises(similarity)) return {C(1), C(0)};
  if (similarity == Similarity::cosine_bounded) return {C(1) / std::sqrt(square + C(eps)), C(1)};
  const C norm = std::sqrt(square), least = C(1e-12);
  if (norm > least) return {C(1) / norm, C(1)};
  return {C(1) / least, C(0)};
}
// Values are normalised in the bounded form only.
HD Similarity value_similarity(Similarity s) { return s == Similarity::cosine_bounded ? s : Similarity::dot; }

// Backward sums the bias gradient within chunks of consecutive windows, then the chunks in order. Their number depends on nothing but
// the windows, and so do the results. A chunk is some 16 windows of 7 x 7, or fewer larger ones.
constexpr int64_t most_chunks_cpu = 32;
inline int64_t attention_chunks(const AttentionShape& a, int64_t most) {
  return std::clamp<int64_t>(a.windows() * std::max(a.tokens(), 49) / (16 * 49), 1, std::min(most, a.windows()));
}

// LePE's kernel and bias; null without it.
template <class C> struct LepeTaps {
  const C *weight, *bias;   // [channels of the heads, 9], [channels of the heads]
};

template <class T> struct AttentionForward {
  AttentionShape shape;
  const T *q, *k, *v;          // of the first of the heads
  const Compute<T>* bias;      // [heads, relative positions], or null
  LepeTaps<Compute<T>> lepe;
  T* out;                      // of the first of the heads
  Compute<T>* log_sum;         // [windows, heads, tokens]: log of the sum of exp over a row of logits
  Compute<T>* entropy;         // [windows, heads]: summed over the rows; on tensor cores [chunks, heads], over the windows of a chunk too
};

// Where the gradient of one of q, k, v goes, whether on top of what is there; nowhere if null.
template <class T> struct GradientTo {
  T* to;
  bool add;
};

template <class T> struct AttentionBackward {
  AttentionShape shape;
  const T *q, *k, *v;
  const Compute<T>* bias;
  LepeTaps<Compute<T>> lepe;
  const Compute<T>* log_sum;
  const T* dout;
  const T* out;                // forward's, for the tensor cores; null without them and with LePE
  GradientTo<T> dq, dk, dv;    // may be one tensor: a token's are written in this order
  Compute<T>* dbias;           // [chunks, heads, relative positions], or null
  Compute<T>* dlepe;           // [chunks, 10, heads, dim]: of the taps and of the bias, or null
  int64_t chunks;              // of consecutive windows; each sums its own dbias and dlepe

  HD Compute<T>& lepe_sum(int64_t chunk, int which, int head, int c) const {
    return dlepe[((chunk * lepe_sums + which) * shape.heads + head) * shape.dim + c];
  }
};

template <class T> void window_attention_cpu(const AttentionForward<T>& call);
template <class T> void window_attention_cpu(const AttentionBackward<T>& call);
