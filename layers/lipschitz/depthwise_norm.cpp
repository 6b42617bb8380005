// depthwise_norm.cpp: upper bounds of the norms of depthwise convolutions.
//
// Torus. Let the map lie on a torus with sides P >= height + k / 2 and Q >= width + k / 2, zero outside. Then no output inside the map
// reads a number of the map around the edge: the zero-padded correlation is the circular one between two restrictions, which are
// contractions. The circular one is diagonal in the Fourier basis: its norm is max |K(w)|, K(w) = sum_t kernel[t] e^(i <w, t>), over the
// P x Q frequencies of the torus, half of which are the conjugates of the other half.
//
// Only the largest channel matters. With tau near the largest norm from above, a channel whose torus bound is <= tau is done, and so is one
// that Schur's test shows to be <= tau: cheap, and close where nearly all numbers of a kernel have one sign, as those of blurs do. For the few
// others tau^2 I - A^T A is proven positive semidefinite inside its band, and tau is raised where that fails.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "layers/lipschitz/band_matrix.h"
#include "layers/lipschitz/conv_norm.h"
#include "layers/lipschitz/kernel_taps.h"
#include "engine/rounding.h"

using rounding::gamma, rounding::u;

namespace {

constexpr double affordable = 1e8;   // operations of one proof, n * band^2

double absolute_sum(const double* kernel, int64_t k) {
  double s = 0;
  for (int64_t i = 0; i < k * k; i++) s += std::abs(kernel[i]);
  return s * (1 + gamma(k * k));
}

class Torus {
 public:
  // No side is longer than needed: with fewer frequencies the bound is the closer.
  Torus(int64_t k, int64_t height, int64_t width)
      : k_(k), height_(height + std::min(k / 2, height - 1)), width_(width + std::min(k / 2, width - 1)), half_(width_ / 2 + 1),
        vertical_(height_), horizontal_(width_), rows_(2 * k * half_), sums_(4 * half_), peak_(half_) {}

  // max |K(w)| + its rounding. With a = sum |kernel| and complex numbers that are off by sqrt(2) times what their parts are: the sums over
  // columns are off by (24 + k) u sqrt(2) a, those over rows by as much again, twice for cosine and sine: 6 (24 + k) u a in all; the last
  // sum, the squares, their sum and the root add 6 u a at most.
  double bound(const double* kernel) {
    transform_rows(kernel);
    std::fill(peak_.begin(), peak_.end(), 0.0);
    for (int64_t v = 0; v <= height_ / 2; v++) add_frequencies(v);
    return std::sqrt(*std::max_element(peak_.begin(), peak_.end())) + 8 * double(32 + k_) * u * absolute_sum(kernel, k_);
  }

 private:
  void transform_rows(const double* kernel) {
    std::fill(rows_.begin(), rows_.end(), 0.0);
    for (int64_t y = 0; y < k_; y++)
      for (int64_t x = 0; x < k_; x++) {
        double *real = rows_.data() + 2 * y * half_, *imaginary = real + half_;
        const double w = kernel[y * k_ + x];
        for (int64_t m = 0, turn = 0; m < half_; m++, turn = (turn + x) % width_) {
          real[m] += w * horizontal_.cosine[turn];
          imaginary[m] += w * horizontal_.sine[turn];
        }
      }
  }

  // K(v, m) and K(-v, m) for all m: with c and s the sums over rows with cosines and with sines, they are c + i s and c - i s.
  void add_frequencies(int64_t v) {
    double *c_real = sums_.data(), *c_imaginary = c_real + half_, *s_real = c_imaginary + half_, *s_imaginary = s_real + half_;
    std::fill(sums_.begin(), sums_.end(), 0.0);
    for (int64_t y = 0; y < k_; y++) {
      const double *real = rows_.data() + 2 * y * half_, *imaginary = real + half_;
      const double cosine = vertical_.cosine[y * v % height_], sine = vertical_.sine[y * v % height_];
#pragma GCC ivdep
      for (int64_t m = 0; m < half_; m++) {
        c_real[m] += cosine * real[m];
        c_imaginary[m] += cosine * imaginary[m];
        s_real[m] += sine * real[m];
        s_imaginary[m] += sine * imaginary[m];
      }
    }
    double* peak = peak_.data();
#pragma GCC ivdep
    for (int64_t m = 0; m < half_; m++) {
      const double a = c_real[m] - s_imaginary[m], b = c_imaginary[m] + s_real[m];
      const double c = c_real[m] + s_imaginary[m], d = c_imaginary[m] - s_real[m];
      const double plus = a * a + b * b, minus = c * c + d * d;
      const double larger = plus < minus ? minus : plus;
      peak[m] = peak[m] < larger ? larger : peak[m];
    }
  }

  int64_t k_, height_, width_, half_;   // half: frequencies of a row that are not conjugates of others
  Roots vertical_, horizontal_;
  std::vector<double> rows_;            // [k, real or imaginary, half]
  std::vector<double> sums_;            // [cosine or sine, real or imaginary, half]
  std::vector<double> peak_;            // [half]
};

// y = A x for a kernel [k, k], or A^T x.
void correlate(const double* kernel, bool adjoint, int64_t k, int64_t height, int64_t width, const double* x, double* y) {
  std::fill_n(y, height * width, 0.0);
  for (int64_t t = 0; t < k * k; t++) {
    const double w = kernel[adjoint ? k * k - 1 - t : t];
    const int64_t down = t / k - k / 2, right = t % k - k / 2;
    const int64_t begin = std::max<int64_t>(0, -right), end = std::min(width, width - right);
    for (int64_t row = std::max<int64_t>(0, -down); row < std::min(height, height - down); row++) {
      const double* in = x + (row + down) * width + right;
      double* out = y + row * width;
#pragma GCC ivdep
      for (int64_t col = begin; col < end; col++) out[col] += w * in[col];
    }
  }
}

// |A|_2 <= tau, if this says so: with B = |A|, number by number, and any x > 0, |A|_2^2 <= |B|_2^2 <= max_i (B^T B x)_i / x_i (Schur). x is
// the power iteration of B^T B, and sums of what is not negative are off by gamma(terms), relative. The least of the ratios bounds |B|_2^2
// from below: where that is above tau^2 there is no hope.
bool within_by_schur(const double* kernel, int64_t k, int64_t height, int64_t width, double tau) {
  std::vector<double> magnitudes(k * k), x(height * width), y(x.size()), z(x.size());
  for (int64_t i = 0; i < k * k; i++) magnitudes[i] = std::abs(kernel[i]);
  const auto window = [&](int64_t i, int64_t side) {   // near the answer for a kernel of ones
    return std::cos(std::numbers::pi * (double(i) - 0.5 * double(side - 1)) / double(side + k / 2));
  };
  for (int64_t i = 0; i < height * width; i++) x[i] = window(i / width, height) * window(i % width, width);
  for (int step = 0; step < 12; step++) {
    correlate(magnitudes.data(), false, k, height, width, x.data(), y.data());
    correlate(magnitudes.data(), true, k, height, width, y.data(), z.data());
    double least = std::numeric_limits<double>::infinity(), largest = 0;
    for (size_t i = 0; i < x.size(); i++) {
      const double ratio = z[i] / x[i];
      least = std::min(least, ratio), largest = std::max(largest, ratio);
    }
    if (largest * (1 + gamma(2 * k * k + 8)) <= tau * tau) return true;
    if (!(least > 1e-15 * largest) || least > tau * tau) return false;   // so that no x underflows either
    for (size_t i = 0; i < x.size(); i++) x[i] = z[i] / largest;
  }
  return false;
}

// A^T A. Each number is a sum of at most k^2 products, so it is off by a matrix of norm <= gamma(k^2) | |A|^T |A| |_2
// <= gamma(k^2) (sum |kernel|)^2: no row and no column of |A| has a larger sum.
BandMatrix gram(const double* kernel, int64_t k, int64_t height, int64_t width) {
  const int64_t half = k / 2, reach_y = std::min(2 * half, height - 1), reach_x = std::min(2 * half, width - 1);
  BandMatrix g(height * width, reach_y * width + reach_x);
  for (int64_t y = 0; y < height; y++)
    for (int64_t x = 0; x < width; x++) {
      const int64_t y0 = std::max<int64_t>(0, half - y), y1 = std::min(k, height - y + half);   // taps inside the map
      const int64_t x0 = std::max<int64_t>(0, half - x), x1 = std::min(k, width - x + half);
      for (int64_t ay = y0; ay < y1; ay++)
        for (int64_t ax = x0; ax < x1; ax++) {
          const double w = kernel[ay * k + ax];
          double* row = g.row((y + ay - half) * width + x + ax - half);
          for (int64_t by = y0; by <= ay; by++) {
            double* to = row + (y + by - half) * width + x - half;
            const int64_t end = by < ay ? x1 : ax + 1;
            for (int64_t bx = x0; bx < end; bx++) to[bx] += w * kernel[by * k + bx];
          }
        }
    }
  return g;
}

// The least tau that is proven, to a tolerance, above one that is not.
template <class Proven> double raise(double not_proven, double estimate, double largest, double tolerance, const Proven& proven) {
  double low = not_proven, high = largest;
  const double from = std::max(low, estimate);
  for (double above = tolerance; from * (1 + above) < largest; above *= 2) {
    if (proven(from * (1 + above))) {
      high = from * (1 + above);
      break;
    }
    low = from * (1 + above);
  }
  if (high <= from * (1 + 1.5 * tolerance)) return high;
  while (high > low * (1 + 2 * tolerance)) {
    const double middle = 0.5 * (low + high);
    (proven(middle) ? high : low) = middle;
  }
  return high;
}

std::vector<double> transposed(const std::vector<double>& kernels, int64_t k) {
  std::vector<double> turned(kernels.size());
  for (size_t i = 0; i < kernels.size(); i++) turned[i - i % (k * k) + i % k * k + i / k % k] = kernels[i];
  return turned;
}

}  // namespace

template <class T>
double depthwise_upper_bound(const T* kernels, int64_t channels, int64_t k, int64_t height, int64_t width, double estimate,
                             double tolerance) {
  check(channels > 0 && k > 0 && k % 2 == 1 && height > 0 && width > 0 && tolerance > 0,
        "[depthwise_upper_bound] channels, height, width and tolerance must be positive and k odd, not ", channels, ", ", height, ", ", width,
        ", ", tolerance, " and ", k);
  Taps taps = scaled_taps(kernels, channels, {height, k, 1, k / 2}, {width, k, 1, k / 2});
  if (taps.scale == 0 || !std::isfinite(taps.scale)) return taps.scale;
  if (width > height) {   // the same norm, and a narrower band
    std::swap(width, height);
    taps.values = transposed(taps.values, k);
  }
  Torus torus(k, height, width);
  std::vector<double> bounds(channels);
  for (int64_t c = 0; c < channels; c++) bounds[c] = torus.bound(taps.values.data() + c * k * k);
  std::vector<int64_t> order(channels);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return bounds[a] > bounds[b]; });
  const double largest = bounds[order[0]], band = double((std::min(k, height) - 1) * width + std::min(k, width) - 1);
  double tau = std::clamp(std::isfinite(estimate) ? estimate / taps.scale * (1 + tolerance) : 0.0, 0.0, largest);
  if (double(height * width) * band * band > affordable) tau = largest;
  for (const int64_t c : order) {
    if (bounds[c] <= tau) break;
    const double* kernel = taps.values.data() + c * k * k;
    if (within_by_schur(kernel, k, height, width, tau)) continue;
    const BandMatrix g = gram(kernel, k, height, width);
    const double sum = absolute_sum(kernel, k), error = gamma(k * k + 2) * sum * sum;
    const auto proven = [&](double limit) { return g.below(limit * limit, error); };
    if (!proven(tau)) tau = raise(tau, std::sqrt(g.largest_eigenvalue(24)), bounds[c], tolerance, proven);
  }
  return taps.scale * tau * (1 + 8 * u);
}

template double depthwise_upper_bound(const float*, int64_t, int64_t, int64_t, int64_t, double, double);
template double depthwise_upper_bound(const double*, int64_t, int64_t, int64_t, int64_t, double, double);
