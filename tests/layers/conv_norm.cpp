// conv_norm: the bounds of convolutions are never below the norm of the operator as a matrix, and close to it.
#include "layers/lipschitz/conv_norm.h"

#include <doctest/doctest.h>

#include <cstdlib>
#include <numbers>

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

// The same where the matrix would be too large, from below.
double conv_norm(const Numbers& kernel, const Convolution& c) {
  const int64_t height = (c.height + 2 * c.padding - c.k) / c.stride + 1, width = (c.width + 2 * c.padding - c.k) / c.stride + 1;
  const auto each_product = [&](const auto& f) {   // f(weight, output, input)
    for (int64_t o = 0; o < c.out; o++)
      for (int64_t i = 0; i < c.in; i++)
        for (int64_t t = 0; t < c.k * c.k; t++)
          for (int64_t y = 0; y < height; y++) {
            const int64_t from_y = y * c.stride + t / c.k - c.padding, shift = t % c.k - c.padding;
            if (from_y < 0 || from_y >= c.height) continue;
            const double w = kernel[(o * c.in + i) * c.k * c.k + t];
            for (int64_t x = 0; x < width; x++)
              if (x * c.stride + shift >= 0 && x * c.stride + shift < c.width)
                f(w, (o * height + y) * width + x, (i * c.height + from_y) * c.width + x * c.stride + shift);
          }
  };
  return std::sqrt(largest_eigenvalue(c.out * height * width, 60, [&](const Numbers& y) {
    Numbers x(c.in * c.height * c.width, 0.0), back(y.size(), 0.0);
    each_product([&](double w, int64_t output, int64_t input) { x[input] += w * y[output]; });
    each_product([&](double w, int64_t output, int64_t input) { back[output] += w * x[input]; });
    return back;
  }));
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
  if (std::getenv("LIPSGRAD_SOUNDNESS")) MESSAGE("worst certified / true: " << worst);
}

TEST_CASE("conv norm: depthwise 7 x 7 on the maps of LipsFormer") {
  for (const int64_t side : {7, 14, 28, 56})
    for (const int64_t kind : {normal, ones, alternating, smooth}) {
      const int64_t channels = side > 20 ? 2 : 8;
      const Numbers w = kernels(kind, channels, 7, side);
      double exact = 0;
      for (int64_t c = 0; c < channels; c++)
        exact = std::max(exact, conv_norm(Numbers(w.begin() + c * 49, w.begin() + (c + 1) * 49),
                                          {.out = 1, .in = 1, .k = 7, .stride = 1, .padding = 3, .height = side, .width = side}));
      const double bound = depthwise_upper_bound(w.data(), channels, 7, side, side, exact);
      if (std::getenv("LIPSGRAD_SOUNDNESS")) MESSAGE(side << " kind " << kind << ": certified / true " << bound / exact);
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
  if (std::getenv("LIPSGRAD_SOUNDNESS")) MESSAGE("worst certified / true: " << worst);
}

TEST_CASE("conv norm: on a torus, where the matrix is too large, never below the truth") {
  const Convolution shapes[] = {
      {.out = 6, .in = 6, .k = 3, .stride = 1, .padding = 1, .height = 11, .width = 9},
      {.out = 5, .in = 6, .k = 5, .stride = 1, .padding = 2, .height = 9, .width = 13},
      {.out = 23, .in = 8, .k = 7, .stride = 2, .padding = 3, .height = 9, .width = 10},
      {.out = 12, .in = 4, .k = 3, .stride = 2, .padding = 1, .height = 13, .width = 13},
      {.out = 12, .in = 2, .k = 7, .stride = 4, .padding = 2, .height = 27, .width = 28},
      {.out = 5, .in = 4, .k = 4, .stride = 3, .padding = 0, .height = 34, .width = 31},
  };
  for (const Convolution& c : shapes)
    for (const int64_t kind : {normal, alternating, smooth}) {
      const Numbers w = kernels(kind, c.out * c.in, c.k, kind);
      const double exact = norm(conv_matrix(w.data(), c)), bound = conv_upper_bound(w.data(), c);
      CAPTURE(c.height);
      CAPTURE(kind);
      CHECK(bound >= exact * (1 - own_rounding));
      // A symbol 1 - (k^2 - 1) / 24 w^2 along each side (a kernel of ones) is taken at pi / height instead of 0: pi^2 / 24 = 0.41.
      CHECK(bound <= exact * (1 + 0.5 * double(c.k * c.k) * (1.0 / double(c.height * c.height) + 1.0 / double(c.width * c.width))));
    }
}

TEST_CASE("conv norm: the patches and the merging of CSwin, with fewer channels") {
  for (const Convolution& c : {Convolution{.out = 4, .in = 3, .k = 7, .stride = 4, .padding = 2, .height = 112, .width = 112},
                               Convolution{.out = 6, .in = 3, .k = 3, .stride = 2, .padding = 1, .height = 56, .width = 56}})
    for (const int64_t kind : {ones, smooth, alternating}) {
      const Numbers w = kernels(kind, c.out * c.in, c.k, 3);
      const double exact = conv_norm(w, c), bound = conv_upper_bound(w.data(), c);
      if (std::getenv("LIPSGRAD_SOUNDNESS")) MESSAGE(c.k << " / " << c.stride << " kind " << kind << ": certified / true " << bound / exact);
      CHECK(bound >= exact);
      CHECK(bound <= exact * 1.02);
    }
}

TEST_CASE("conv norm: kernels whose norms are known") {
  const Numbers nine(9, 1.0);
  const double side = 1 + 2 * std::cos(std::numbers::pi / 31), flat = side * side;   // 30 x 30: a product of two tridiagonal matrices
  CHECK(depthwise_upper_bound(nine.data(), 1, 3, 30, 30, 0.0) >= flat);
  CHECK(depthwise_upper_bound(nine.data(), 1, 3, 30, 30, 0.0) <= flat * (1 + 3e-4));
  CHECK(depthwise_upper_bound(nine.data(), 1, 3, 300, 300, 0.0) == doctest::Approx(9).epsilon(1e-12));
  CHECK(depthwise_upper_bound(nine.data(), 1, 3, 300, 300, 0.0) >= 9 * (1 - 4e-4));
  const Convolution same{.out = 1, .in = 1, .k = 3, .stride = 1, .padding = 1, .height = 60, .width = 60};
  CHECK(conv_upper_bound(nine.data(), same) == doctest::Approx(9).epsilon(1e-5));

  Convolution patches{.out = 24, .in = 3, .k = 4, .stride = 4, .padding = 0, .height = 224, .width = 224};
  const Numbers w = kernels(normal, 24 * 3, 4, 1);
  const double reshaped = largest_singular_value(w.data(), 24, 48);
  CHECK(conv_upper_bound(w.data(), patches) >= reshaped * (1 - own_rounding));
  CHECK(conv_upper_bound(w.data(), patches) <= reshaped * (1 + 2e-6));

  Convolution grouped{.out = 6, .in = 6, .k = 5, .stride = 1, .padding = 2, .height = 9, .width = 7, .groups = 6};
  const Numbers g = kernels(normal, 6, 5, 2);
  CHECK(conv_upper_bound(g.data(), grouped) == doctest::Approx(depthwise_upper_bound(g.data(), 6, 5, 9, 7, 0.0)).epsilon(2e-4));
  grouped.groups = 3;   // [6, 2, 5, 5]
  const Numbers h = kernels(normal, 12, 5, 2);
  double largest = 0;
  for (int64_t i = 0; i < 3; i++)
    largest = std::max(largest, norm(conv_matrix(h.data() + i * 100, {.out = 2, .in = 2, .k = 5, .stride = 1, .padding = 2, .height = 9, .width = 7})));
  CHECK(conv_upper_bound(h.data(), grouped) >= largest * (1 - own_rounding));
  CHECK(conv_upper_bound(h.data(), grouped) <= largest * (1 + 2e-6));
}

TEST_CASE("conv norm: scale, zero, numbers that are not finite, shapes that cannot be") {
  const Convolution shape{.out = 2, .in = 3, .k = 3, .stride = 2, .padding = 1, .height = 8, .width = 6};
  Numbers w = kernels(normal, 6, 3, 4);
  const double whole = conv_upper_bound(w.data(), shape), each = depthwise_upper_bound(w.data(), 6, 3, 8, 6, 0.0);
  for (const double scale : {0x1p-700, 0x1p-40, 0x1p600}) {
    Numbers scaled = w;
    for (double& v : scaled) v *= scale;
    CHECK(conv_upper_bound(scaled.data(), shape) == whole * scale);
    CHECK(depthwise_upper_bound(scaled.data(), 6, 3, 8, 6, 0.0) == each * scale);
  }
  const Numbers zero(54, 0.0);
  CHECK(conv_upper_bound(zero.data(), shape) == 0);
  CHECK(depthwise_upper_bound(zero.data(), 6, 3, 8, 6, 0.0) == 0);
  CHECK(depthwise_upper_bound(kernels(delta, 1, 3, 0).data(), 1, 3, 1, 1, 0.0) >= 0);
  for (const double bad : {double(NAN), double(-INFINITY)}) {
    w[17] = bad;
    CHECK(conv_upper_bound(w.data(), shape) == INFINITY);
    CHECK(depthwise_upper_bound(w.data(), 6, 3, 8, 6, 1.0) == INFINITY);
  }
  CHECK_THROWS(depthwise_upper_bound(zero.data(), 6, 2, 8, 6, 0.0));
  CHECK_THROWS(depthwise_upper_bound(zero.data(), 6, 3, 0, 6, 0.0));
  CHECK_THROWS(conv_upper_bound(zero.data(), {.out = 1, .in = 1, .k = 5, .stride = 1, .padding = 0, .height = 4, .width = 8}));
  CHECK_THROWS(conv_upper_bound(zero.data(), {.out = 3, .in = 2, .k = 3, .stride = 1, .padding = 1, .height = 4, .width = 8, .groups = 2}));
}
