// conv_norm: the bounds of convolutions are never below the norm of the operator as a matrix, and close to it.
#include "layers/lipschitz/conv_norm.h"

#include <doctest/doctest.h>

#include "layers/lipschitz/gram_norm.h"
#include "layers/lipschitz/singular_value.h"
#include "matrices.h"

namespace {

using Numbers = std::vector<double>;

// A case's own numbers, drawn from its name.
int64_t drawn(const char* what, int64_t i, int64_t count) {
  return int64_t(RandomStream(5, what).words(0, uint64_t(i), 0)[0] % uint64_t(count));
}

enum Kind { normal, ones, delta, alternating, one_sided, smooth, kinds };

// [planes, k, k]
Numbers kernels(int64_t kind, int64_t planes, int64_t k, int64_t seed) {
  const std::string stream = str("kernel.", seed);
  const int64_t only = drawn("only", seed, k * k);
  Numbers w(planes * k * k);
  for (int64_t i = 0; i < int64_t(w.size()); i++) {
    const int64_t y = i / k % k, x = i % k, plane = i / (k * k);
    const double number = normal_number(stream.c_str(), i), gain = normal_number(stream.c_str(), 1000000 + plane);
    if (kind == normal) w[i] = number;
    if (kind == ones) w[i] = gain;
    if (kind == delta) w[i] = y * k + x == only ? gain : 0;
    if (kind == alternating) w[i] = (y + x) % 2 ? -gain : gain;
    if (kind == one_sided) w[i] = y >= k / 2 && x > k / 2 ? number : 0;
    if (kind == smooth) w[i] = gain + 0.1 * number;
  }
  return w;
}

Matrix conv_matrix(const double* kernel, const Convolution& c) {
  const int64_t height = (c.height + 2 * c.padding - c.k) / c.stride + 1, width = (c.width + 2 * c.padding - c.k) / c.stride + 1;
  Matrix m(c.out * height * width, c.in * c.height * c.width);
  for (int64_t o = 0; o < c.out; o++)
    for (int64_t i = 0; i < c.in; i++)
      for (int64_t y = 0; y < height; y++)
        for (int64_t x = 0; x < width; x++)
          for (int64_t ky = 0; ky < c.k; ky++)
            for (int64_t kx = 0; kx < c.k; kx++) {
              const int64_t from_y = y * c.stride + ky - c.padding, from_x = x * c.stride + kx - c.padding;
              if (from_y < 0 || from_y >= c.height || from_x < 0 || from_x >= c.width) continue;
              m.at((o * height + y) * width + x, (i * c.height + from_y) * c.width + from_x) = kernel[((o * c.in + i) * c.k + ky) * c.k + kx];
            }
  return m;
}

// Up to rounding where a side is at most 120, else from below. Small ones by a method that shares nothing with ours.
double norm(const Matrix& m) {
  if (std::max(m.rows, m.columns) <= 20) return singular_values(m).front();
  return largest_singular_value(m.values.data(), m.rows, m.columns);
}

double depthwise_norm(const Numbers& w, int64_t channels, int64_t k, int64_t height, int64_t width) {
  double largest = 0;
  for (int64_t c = 0; c < channels; c++) largest = std::max(largest, norm(correlation_matrix(w.data() + c * k * k, k, height, width)));
  return largest;
}

// The same where the matrix would be too large: A^T A by A, from below.
double correlation_norm(const double* kernel, int64_t k, int64_t height, int64_t width) {
  const auto correlate = [&](const Numbers& x, bool adjoint) {
    Numbers y(x.size(), 0.0);
    for (int64_t row = 0; row < height; row++)
      for (int64_t t = 0; t < k * k; t++) {
        const int64_t from = row + t / k - k / 2, shift = t % k - k / 2;
        if (from < 0 || from >= height) continue;
        const double w = kernel[adjoint ? k * k - 1 - t : t];
        for (int64_t col = std::max<int64_t>(0, -shift); col < std::min(width, width - shift); col++)
          y[row * width + col] += w * x[from * width + col + shift];
      }
    return y;
  };
  return std::sqrt(largest_eigenvalue(height * width, 150, [&](const Numbers& x) { return correlate(correlate(x, false), true); }));
}

constexpr double own_rounding = 4e-14;   // of the methods that we compare with

}  // namespace

TEST_CASE("conv norm: depthwise, never below the truth and within the tolerance of it on 400 draws") {
  double worst = 1;
  for (int64_t i = 0; i < 400; i++) {
    const int64_t k = 1 + 2 * drawn("k", i, 4), height = 1 + drawn("height", i, 14), width = 1 + drawn("width", i, i % 7 ? 9 : 14);
    const int64_t channels = 1 + drawn("channels", i, 6);
    Numbers w = kernels(i % kinds, channels, k, i);
    std::vector<float> single(w.begin(), w.end());
    const bool as_single = i % 3 == 0;
    if (as_single) w.assign(single.begin(), single.end());
    CAPTURE(i);
    CAPTURE(k);
    CAPTURE(height);
    CAPTURE(width);
    const double exact = depthwise_norm(w, channels, k, height, width);
    for (const double estimate : {0.0, exact * (1 - 1e-5), exact * 0.9, exact * 2, double(NAN)}) {
      const double bound = as_single ? depthwise_upper_bound(single.data(), channels, k, height, width, estimate)
                                     : depthwise_upper_bound(w.data(), channels, k, height, width, estimate);
      CHECK(bound >= exact * (1 - own_rounding));
      if (estimate > exact) continue;
      CHECK(bound <= exact * (1 + 3e-4));
      if (exact > 0) worst = std::max(worst, bound / exact);
    }
  }
  MESSAGE("worst certified / true: " << worst);
}

TEST_CASE("conv norm: depthwise 7 x 7 on the maps of LipsFormer") {
  for (const int64_t side : {7, 14, 28, 56})
    for (const int64_t kind : {normal, ones, alternating, smooth}) {
      const int64_t channels = side > 20 ? 3 : 8;
      const Numbers w = kernels(kind, channels, 7, side);
      double exact = 0;
      for (int64_t c = 0; c < channels; c++) exact = std::max(exact, correlation_norm(w.data() + c * 49, 7, side, side));
      const double bound = depthwise_upper_bound(w.data(), channels, 7, side, side, exact);
      MESSAGE(side << " kind " << kind << ": certified / true " << bound / exact);
      CHECK(bound >= exact);
      CHECK(bound <= exact * (side > 40 ? 1.02 : 1 + 3e-4));
    }
}

TEST_CASE("conv norm: strides, channels and paddings, never below the truth") {
  double worst = 1;
  for (int64_t i = 0; i < 300; i++) {
    Convolution c{.out = 1 + drawn("out", i, 5), .in = 1 + drawn("in", i, 4), .k = 1 + drawn("side", i, 7), .stride = 1 + drawn("stride", i, 4)};
    c.padding = drawn("padding", i, c.k / 2 + 2);
    c.height = std::max<int64_t>(1 + drawn("rows", i, 10), c.k - 2 * c.padding);
    c.width = std::max<int64_t>(1 + drawn("columns", i, 7), c.k - 2 * c.padding);
    const Numbers w = kernels(i % kinds, c.out * c.in, c.k, i);
    CAPTURE(i);
    const double exact = norm(conv_matrix(w.data(), c)), bound = conv_upper_bound(w.data(), c);
    CHECK(bound >= exact * (1 - own_rounding));
    CHECK(bound <= exact * (1 + 2e-6));
    if (exact > 0) worst = std::max(worst, bound / exact);
  }
  MESSAGE("worst certified / true: " << worst);
}

TEST_CASE("conv norm: on a torus, where the matrix is too large, never below the truth") {
  const Convolution shapes[] = {
      {.out = 6, .in = 6, .k = 3, .stride = 1, .padding = 1, .height = 11, .width = 9},
      {.out = 6, .in = 5, .k = 5, .stride = 1, .padding = 2, .height = 13, .width = 9},
      {.out = 30, .in = 8, .k = 7, .stride = 2, .padding = 3, .height = 9, .width = 10},
      {.out = 16, .in = 4, .k = 3, .stride = 2, .padding = 1, .height = 13, .width = 13},
      {.out = 12, .in = 3, .k = 7, .stride = 4, .padding = 2, .height = 28, .width = 28},
      {.out = 5, .in = 6, .k = 4, .stride = 3, .padding = 0, .height = 34, .width = 31},
  };
  for (const Convolution& c : shapes)
    for (int64_t kind = 0; kind < kinds; kind++) {
      const Numbers w = kernels(kind, c.out * c.in, c.k, kind);
      const double exact = norm(conv_matrix(w.data(), c)), bound = conv_upper_bound(w.data(), c);
      MESSAGE(c.k << " / " << c.stride << " on " << c.height << " kind " << kind << ": certified / true " << bound / exact);
      CHECK(bound >= exact * (1 - own_rounding));
      CHECK(bound <= exact * 1.2);
    }
}
