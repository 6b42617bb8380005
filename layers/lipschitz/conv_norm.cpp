// conv_norm.cpp: upper bounds of the norms of convolutions with many channels.
//
// Phases. With t = stride * l + a, 0 <= a < stride along each side, a strided convolution is one of stride 1 on in * stride^2 channels, the
// phases of the input, with ceil(k / stride) taps along each side.
//
// Torus. Let the input, shifted by the padding, lie on a torus with sides P = stride * M >= size + padding and M >= outputs, zero outside.
// Its numbers lie at padding ... padding + size - 1. Output i reads position stride * i + t <= size + 2 padding - 1; what goes round the
// edge comes back to stride * i + t - P <= padding - 1, where nothing lies. So the zero-padded operator is the circular one between two
// restrictions, which are contractions. The circular one of stride 1 on M x M positions is one matrix W(w) = sum_l B_l e^(i <w, l>),
// [out, in stride^2], at each frequency w; its norm is the largest of theirs. W(-w) is the conjugate of W(w).
#include "layers/lipschitz/conv_norm.h"

#include <algorithm>
#include <cmath>

#include "layers/lipschitz/gram_norm.h"
#include "layers/lipschitz/kernel_taps.h"
#include "engine/rounding.h"
#include "layers/lipschitz/row_products.h"
#include "layers/lipschitz/singular_value.h"

using rounding::gamma, rounding::u;

namespace {

// W(w) W(w)^H as a function of the frequency: R_0 + sum_l (R_l e^(-i <w, l>) + R_l^T e^(i <w, l>)) over half of the shifts l, with
// R_l = sum_t B_t B_(t+l)^T. Where the columns are fewer, B_t is turned around. X + i Y stands as [[X, -Y], [Y, X]], with the same
// eigenvalues.
class TorusGram {
 public:
  TorusGram(const double* kernel, const Convolution& shape);
  int64_t rows() const { return rows_; }
  int64_t size() const { return 2 * rows_; }
  int64_t vertical() const { return int64_t(vertical_.cosine.size()); }
  int64_t horizontal() const { return int64_t(horizontal_.cosine.size()); }
  // The lower triangle of [size, size] at frequency 2 pi (v / vertical, h / horizontal), up to `error` in norm.
  std::vector<double> at(int64_t v, int64_t h) const;
  double error() const { return error_; }

 private:
  void add_shift(const std::vector<double>& taps, int64_t y, int64_t x);

  struct Shift {
    int64_t y, x;
    std::vector<double> sum, difference;   // R_l + R_l^T and R_l - R_l^T; only the first, R_0, for no shift
  };
  int64_t rows_, columns_, side_;   // of B_t, and how many t there are along a side
  Roots vertical_, horizontal_;
  std::vector<Shift> shifts_;
  double error_ = 0;
};

int64_t phases(const Convolution& c) { return c.in / c.groups * c.stride * c.stride; }

// One tap alone is the same at all frequencies.
int64_t torus_side(const Convolution& c, int64_t size) {
  if (c.k <= c.stride) return 1;
  const Side side{size, c.k, c.stride, c.padding};
  return std::max((size + c.padding + c.stride - 1) / c.stride, side.outputs());
}

// Rounding. A number of R_l is a sum of columns * side^2 products at most; then come R_l +- R_l^T and the sum over (2 side - 1)^2 shifts with
// roots that are off by 24 u, their products by 72 u. Real and imaginary part are each off by at most gamma(all these) times the sum of the
// absolute products, the complex number by twice that at most; the sum of the absolute products over all shifts is |B| |B|^T with
// |B| = sum_t |B_t|, number by number.
TorusGram::TorusGram(const double* kernel, const Convolution& c)
    : side_((c.k + c.stride - 1) / c.stride), vertical_(torus_side(c, c.height)), horizontal_(torus_side(c, c.width)) {
  const int64_t out = c.out / c.groups, in = c.in / c.groups, s = c.stride;
  const bool turned = out > phases(c);
  rows_ = std::min(out, phases(c)), columns_ = std::max(out, phases(c));
  std::vector<double> taps(side_ * side_ * rows_ * columns_, 0.0);   // B [side, side, rows, columns]
  for (int64_t o = 0; o < out; o++)
    for (int64_t i = 0; i < in; i++)
      for (int64_t y = 0; y < c.k; y++)
        for (int64_t x = 0; x < c.k; x++) {
          const int64_t phase = (i * s + y % s) * s + x % s, tap = y / s * side_ + x / s;
          taps[(tap * rows_ + (turned ? phase : o)) * columns_ + (turned ? o : phase)] = kernel[((o * in + i) * c.k + y) * c.k + x];
        }
  for (int64_t y = 0; y < side_; y++)
    for (int64_t x = y == 0 ? 0 : 1 - side_; x < side_; x++) add_shift(taps, y, x);
  double squares = 0;   // | sum_t |B_t| |_F^2
  for (int64_t i = 0; i < rows_ * columns_; i++) {
    double sum = 0;
    for (int64_t t = 0; t < side_ * side_; t++) sum += std::abs(taps[t * rows_ * columns_ + i]);
    squares += sum * sum;
  }
  const int64_t terms = columns_ * side_ * side_ + 4 * side_ * side_ + 128;
  error_ = 2 * gamma(terms) * squares * (1 + gamma(rows_ * columns_ + 2 * side_ * side_ + 2)) + 1e-290;
}

void TorusGram::add_shift(const std::vector<double>& taps, int64_t y, int64_t x) {
  std::vector<double> r(rows_ * rows_, 0.0);
  for (int64_t ty = 0; ty + y < side_; ty++)
    for (int64_t tx = std::max<int64_t>(0, -x); tx < std::min(side_, side_ - x); tx++) {
      const int64_t from = ty * side_ + tx, to = (ty + y) * side_ + tx + x;
      RowProducts{taps.data() + from * rows_ * columns_, taps.data() + to * rows_ * columns_, columns_, columns_, 1, r.data(), rows_}
          .run(rows_, rows_);
    }
  if (y == 0 && x == 0) return shifts_.push_back({0, 0, std::move(r), {}});
  Shift shift{y, x, r, r};
  for (int64_t i = 0; i < rows_; i++)
    for (int64_t j = 0; j < rows_; j++) {
      shift.sum[i * rows_ + j] = r[i * rows_ + j] + r[j * rows_ + i];
      shift.difference[i * rows_ + j] = r[i * rows_ + j] - r[j * rows_ + i];
    }
  shifts_.push_back(std::move(shift));
}

std::vector<double> TorusGram::at(int64_t v, int64_t h) const {
  const int64_t n = rows_;
  std::vector<double> g(4 * n * n, 0.0);
  for (const Shift& l : shifts_) {
    const int64_t a = l.y * v % vertical(), b = ((l.x * h) % horizontal() + horizontal()) % horizontal();
    const double cosine = vertical_.cosine[a] * horizontal_.cosine[b] - vertical_.sine[a] * horizontal_.sine[b];
    const double sine = vertical_.sine[a] * horizontal_.cosine[b] + vertical_.cosine[a] * horizontal_.sine[b];
    for (int64_t i = 0; i < n; i++) {
      const double* sum = l.sum.data() + i * n;
      double *real = g.data() + i * 2 * n, *imaginary = g.data() + (n + i) * 2 * n;
#pragma GCC ivdep
      for (int64_t j = 0; j <= i; j++) real[j] += cosine * sum[j];
      if (l.difference.empty()) continue;
      const double* difference = l.difference.data() + i * n;
#pragma GCC ivdep
      for (int64_t j = 0; j < n; j++) imaginary[j] += sine * difference[j];
    }
  }
  for (int64_t i = 0; i < n; i++) std::copy_n(g.data() + i * 2 * n, i + 1, g.data() + (n + i) * 2 * n + n);
  return g;
}

double lanczos(const std::vector<double>& lower, int64_t n, int steps) {
  return largest_eigenvalue(n, steps, [&](const std::vector<double>& x) {
    std::vector<double> y(n, 0.0);
    for (int64_t i = 0; i < n; i++) {
      const double* g = lower.data() + i * n;
      double s = 0;
#pragma omp simd reduction(+ : s)
      for (int64_t j = 0; j < i; j++) s += g[j] * x[j];
      y[i] += s + g[i] * x[i];
#pragma GCC ivdep
      for (int64_t j = 0; j < i; j++) y[j] += g[j] * x[i];
    }
    return y;
  });
}

// |G|_F of the complex matrix, from above, by its lower triangle [[X], [Y, X]] as real one: |G|_F^2 = |X|_F^2 + |Y|_F^2.
double frobenius(const std::vector<double>& lower, int64_t rows) {
  double squares = 0;
  for (int64_t i = 0; i < rows; i++) {
    const double *x = lower.data() + i * 2 * rows, *y = lower.data() + (rows + i) * 2 * rows;
    double below = 0, imaginary = 0;
#pragma omp simd reduction(+ : below)
    for (int64_t j = 0; j < i; j++) below += x[j] * x[j];
#pragma omp simd reduction(+ : imaginary)
    for (int64_t j = 0; j < rows; j++) imaginary += y[j] * y[j];
    squares += x[i] * x[i] + 2 * below + imaginary;
  }
  return std::sqrt(squares) * (1 + gamma(4 * rows + 8));
}

// Only the largest frequency matters: most are done with one proof that they lie below tau, or without.
double torus_bound(const double* kernel, const Convolution& shape) {
  const TorusGram gram(kernel, shape);
  struct Frequency {
    int64_t v, h;
    double below, above;   // squared norms
  };
  std::vector<Frequency> frequencies;
  for (int64_t v = 0; v <= gram.vertical() / 2; v++)
    for (int64_t h = 0; h < gram.horizontal(); h++) {
      const std::vector<double> g = gram.at(v, h);
      frequencies.push_back({v, h, lanczos(g, gram.size(), 6), frobenius(g, gram.rows()) + gram.error()});
    }
  std::stable_sort(frequencies.begin(), frequencies.end(), [](const Frequency& a, const Frequency& b) { return a.below > b.below; });
  double tau = 0;
  for (size_t i = 0; i < std::min<size_t>(4, frequencies.size()); i++)
    tau = std::max(tau, std::sqrt(lanczos(gram.at(frequencies[i].v, frequencies[i].h), gram.size(), 60)) * (1 + 1e-6));
  for (const Frequency& f : frequencies) {
    if (f.above <= tau * tau * (1 - 4 * u)) continue;
    const GramMatrix matrix(gram.at(f.v, f.h), gram.size(), gram.error());
    if (!matrix.within(tau)) tau = std::max(tau, matrix.upper_bound(tau, 1e-6));
  }
  return tau;
}

struct Outputs {
  int64_t height, width;
};

Outputs outputs(const Convolution& c) {
  return {Side{c.height, c.k, c.stride, c.padding}.outputs(), Side{c.width, c.k, c.stride, c.padding}.outputs()};
}

// The operator as the matrix it is, [out * outputs, in * height * width].
double dense_bound(const double* kernel, const Convolution& c) {
  const auto [height, width] = outputs(c);
  const int64_t out = c.out / c.groups, in = c.in / c.groups, columns = in * c.height * c.width;
  std::vector<double> matrix(out * height * width * columns, 0.0);
  double* row = matrix.data();
  for (int64_t o = 0; o < out; o++)
    for (int64_t y = 0; y < height; y++)
      for (int64_t x = 0; x < width; x++, row += columns)
        for (int64_t i = 0; i < in; i++)
          for (int64_t t = 0; t < c.k * c.k; t++) {
            const int64_t from_y = c.stride * y + t / c.k - c.padding, from_x = c.stride * x + t % c.k - c.padding;
            if (from_y < 0 || from_y >= c.height || from_x < 0 || from_x >= c.width) continue;
            row[(i * c.height + from_y) * c.width + from_x] = kernel[(o * in + i) * c.k * c.k + t];
          }
  const int64_t rows = out * height * width;
  return GramMatrix(matrix.data(), rows, columns).upper_bound(largest_singular_value(matrix.data(), rows, columns), 1e-6);
}

bool dense_is_small(const Convolution& c) {
  const auto [height, width] = outputs(c);
  const double rows = double(c.out / c.groups) * double(height * width), columns = double(c.in / c.groups) * double(c.height * c.width);
  return std::min(rows, columns) <= 512 && rows * columns <= 0x1p20;
}

}  // namespace

template <class T> double conv_upper_bound(const T* kernel, const Convolution& c) {
  check(c.out > 0 && c.in > 0 && c.k > 0 && c.stride > 0 && c.padding >= 0 && c.groups > 0 && c.out % c.groups == 0 && c.in % c.groups == 0,
        "[conv_upper_bound] channels must be divisible by groups, k and stride positive, not ", c.out, " and ", c.in, " by ", c.groups, ", ",
        c.k, ", ", c.stride);
  check(std::min(c.height, c.width) > 0 && std::min(c.height, c.width) + 2 * c.padding >= c.k,
        "[conv_upper_bound] a kernel of side ", c.k, " with padding ", c.padding, " does not fit a map of ", c.height, " x ", c.width);
  const int64_t group = c.out / c.groups * (c.in / c.groups) * c.k * c.k;
  const Taps taps = scaled_taps(kernel, c.out * (c.in / c.groups), {c.height, c.k, c.stride, c.padding}, {c.width, c.k, c.stride, c.padding});
  if (taps.scale == 0 || !std::isfinite(taps.scale)) return taps.scale;
  double largest = 0;
  for (int64_t g = 0; g < c.groups; g++) {
    const double* values = taps.values.data() + g * group;
    const bool exact = c.k <= c.stride && c.padding == 0;   // patches that do not overlap, and none is cut
    largest = std::max(largest, !exact && dense_is_small(c) ? dense_bound(values, c) : torus_bound(values, c));
  }
  return taps.scale * largest * (1 + 8 * u);
}

template double conv_upper_bound(const float*, const Convolution&);
template double conv_upper_bound(const double*, const Convolution&);
