// attention_reference.h: attention by plain loops over the map in f64, as a person would write it down: roll, cut, attend, put together,
// roll back.
#pragma once
#include <cmath>
#include <vector>

#include "engine/ops.h"

struct AttentionReference {
  const WindowAttention c;
  const int64_t B, H, W, C, d;
  const std::vector<double> q, k, v, table;   // the table may be empty
  const std::vector<Lepe> lepe;
  std::vector<double> out, entropy;

  AttentionReference(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& bias_table, const WindowAttention& config,
                     const std::vector<Lepe>& lepe = {})
      : c(config), B(query.dim(0)), H(query.dim(1)), W(query.dim(2)), C(query.dim(3)), d(C / c.heads), q(query.values()), k(key.values()),
        v(value.values()), table(bias_table ? bias_table.values() : std::vector<double>()), lepe(lepe), out(B * H * W * C), entropy(c.heads) {
    for (int h = 0; h < c.heads; h++) {
      const bool swapped = c.cross_shaped && h >= c.heads / 2;
      const int64_t wh = swapped ? c.window_width : c.window_height, ww = swapped ? c.window_height : c.window_width;
      for (int64_t b = 0; b < B; b++)
        for (int64_t top = 0; top < H; top += wh)
          for (int64_t left = 0; left < W; left += ww)
            for (int64_t i = 0; i < wh * ww; i++) {
              attend(h, b, top, left, wh, ww, i);
              if (!lepe.empty()) convolve(h, b, top, left, wh, ww, top + i / ww, left + i % ww);
            }
    }
  }

 private:
  struct Place { int64_t y, x; };   // in the rolled map

  int64_t rolled(int64_t b, Place p) const { return (b * H + (p.y + c.shift) % H) * W + (p.x + c.shift) % W; }

  bool see_each_other(Place a, Place b, int64_t wh, int64_t ww) const {
    const auto region = [&](int64_t y, int64_t size, int64_t window) { return y < size - window ? 0 : y < size - c.shift ? 1 : 2; };
    return !c.shift || (region(a.y, H, wh) == region(b.y, H, wh) && region(a.x, W, ww) == region(b.x, W, ww));
  }

  std::vector<double> row(const std::vector<double>& from, int64_t token, int h, bool value) const {
    std::vector<double> x(from.begin() + token * C + h * d, from.begin() + token * C + (h + 1) * d);
    double square = 0, norm = 1;
    for (const double e : x) square += e * e;
    if (c.similarity == Similarity::cosine && !value) norm = std::max(std::sqrt(square), 1e-12);
    if (c.similarity == Similarity::cosine_bounded) norm = std::sqrt(square + c.eps);
    for (double& e : x) e /= norm;
    return x;
  }

  double similarity(const std::vector<double>& a, const std::vector<double>& b) const {
    double product = 0, distance = 0;
    for (int64_t e = 0; e < d; e++) {
      product += a[e] * b[e];
      distance += (a[e] - b[e]) * (a[e] - b[e]);
    }
    const double scale = c.scale != 0 ? c.scale : 1 / std::sqrt(double(d));
    if (c.similarity == Similarity::dot) return scale * product;
    return c.similarity == Similarity::l2 ? -scale * distance : c.tau * product;
  }

  // Adds LePE of head h to the token at (y, x) of the window at (top, left).
  void convolve(int h, int64_t b, int64_t top, int64_t left, int64_t wh, int64_t ww, int64_t y, int64_t x) {
    const int64_t shapes = int64_t(lepe.size()), first = h * d % (C / shapes);
    const Lepe& mine = lepe[size_t(h * d / (C / shapes))];
    const std::vector<double> weight = mine.weight.values(), bias = mine.bias.values();
    for (int64_t e = 0; e < d; e++) {
      double& to = out[((b * H + y) * W + x) * C + h * d + e];
      to += bias[first + e];
      for (int64_t i = 0; i < 3; i++)
        for (int64_t j = 0; j < 3; j++) {
          const int64_t row = y + i - 1, column = x + j - 1;
          const bool inside = row >= top && row < top + wh && column >= left && column < left + ww;
          if (inside) to += weight[(first + e) * 9 + i * 3 + j] * v[((b * H + row) * W + column) * C + h * d + e];
        }
    }
  }

  void attend(int h, int64_t b, int64_t top, int64_t left, int64_t wh, int64_t ww, int64_t i) {
    const auto place = [&](int64_t t) { return Place{top + t / ww, left + t % ww}; };
    const int64_t seen = c.causal ? i + 1 : wh * ww;
    const Place me = place(i);
    const std::vector<double> query = row(q, rolled(b, me), h, false);
    std::vector<double> p(seen);
    double sum = 0;
    for (int64_t j = 0; j < seen; j++) {
      const Place other = place(j);
      double s = similarity(query, row(k, rolled(b, other), h, false));
      if (!table.empty()) s += table[((me.y - other.y + wh - 1) * (2 * ww - 1) + me.x - other.x + ww - 1) * c.heads + h];
      p[j] = std::exp(s / c.temperature - (see_each_other(me, other, wh, ww) ? 0 : 100));
      sum += p[j];
    }
    double* to = out.data() + rolled(b, me) * C + h * d;
    for (int64_t j = 0; j < seen; j++) {
      p[j] /= sum;
      if (p[j] > 0) entropy[h] -= p[j] * std::log(p[j]) / double(B * H * W);
      const std::vector<double> value = row(v, rolled(b, place(j)), h, true);
      for (int64_t e = 0; e < d; e++) to[e] += p[j] * value[e] * (c.similarity == Similarity::cosine_bounded ? c.nu : 1);
    }
  }
};

// One of the three that lie side by side in qkv.
inline Tensor part_of(const Tensor& qkv, int part) {
  const int64_t channels = qkv.dim(3) / 3, tokens = qkv.size() / qkv.dim(3);
  const std::vector<double> all = qkv.values();
  std::vector<double> one(tokens * channels);
  for (int64_t i = 0; i < tokens * channels; i++) one[i] = all[i / channels * 3 * channels + part * channels + i % channels];
  return Tensor::from({qkv.dim(0), qkv.dim(1), qkv.dim(2), channels}, one, DType::f64);
}
