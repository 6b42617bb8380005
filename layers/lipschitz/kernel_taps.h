// kernel_taps.h: what the bounds of convolutions share: the taps that count, scaled, and roots of unity.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

#include "engine/check.h"

// One side of a convolution: size numbers, k taps, zero padding.
struct Side {
  int64_t size, k, stride, padding;
  int64_t outputs() const { return (size + 2 * padding - k) / stride + 1; }
  // Does an output read a number of the map with this tap? stride * i + tap - padding lies in [0, size) for some i.
  bool reads(int64_t tap) const {
    const int64_t first = std::max<int64_t>(0, (padding - tap + stride - 1) / stride);
    return first < outputs() && stride * first + tap - padding < size;
  }
};

// Kernels [planes, k, k] in f64, divided by a power of two so that the largest number lies in [0.5, 1): exact, and no square that matters
// underflows. Taps that never read the map are zero. scale = 0: all are; scale = infinity: some number is not finite.
struct Taps {
  double scale = 0;
  std::vector<double> values;
};

template <class T> Taps scaled_taps(const T* kernels, int64_t planes, const Side& vertical, const Side& horizontal) {
  const int64_t k = vertical.k;
  Taps taps{0, std::vector<double>(planes * k * k, 0.0)};
  double largest = 0;
  for (int64_t i = 0; i < planes * k * k; i++) {
    if (!std::isfinite(kernels[i])) return {std::numeric_limits<double>::infinity(), {}};
    if (!vertical.reads(i / k % k) || !horizontal.reads(i % k)) continue;
    taps.values[i] = double(kernels[i]);
    largest = std::max(largest, std::abs(taps.values[i]));
  }
  if (largest == 0) return taps;
  int exponent;
  std::frexp(largest, &exponent);
  taps.scale = std::ldexp(1.0, std::clamp(exponent, -1000, 1000));
  for (double& v : taps.values) v /= taps.scale;
  return taps;
}

// cos and sin of 2 pi m / n. The angle is off by 3 u relative, at most 19 u; the functions by less than an ulp: 24 u in all, u = 2^-53.
struct Roots {
  std::vector<double> cosine, sine;
  explicit Roots(int64_t n) : cosine(n), sine(n) {
    for (int64_t m = 0; m < n; m++) {
      const double angle = 2 * std::numbers::pi * double(m) / double(n);
      cosine[m] = std::cos(angle), sine[m] = std::sin(angle);
    }
  }
};
