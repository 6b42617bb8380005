// init.cpp: drawing initial values.
#include "layers/init.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "layers/lipschitz/row_products.h"
#include "layers/lipschitz/singular_value.h"

namespace {

// Element i of a parameter, a function of the stream alone.
double draw(const RandomStream& stream, int64_t i, bool normal) {
  const Words w = stream.words(0, uint64_t(i) / 2, 0);
  const int at = int(i % 2) * 2;
  return normal ? normal_from(w[at], w[at + 1]) : 2.0 * (double(w[at]) + 0.5) / 4294967296.0 - 1.0;
}

double squares(const double* a, int64_t n) {
  double s = 0;
#pragma omp simd reduction(+ : s)
  for (int64_t i = 0; i < n; i++) s += a[i] * a[i];
  return s;
}

// b [rows, n] -= (b q^T) q for orthonormal rows q [count, n]; products is scratch.
void take_away(double* b, int64_t rows, const double* q, int64_t count, int64_t n, std::vector<double>& products) {
  products.assign(rows * count, 0.0);
  RowProducts{b, q, n, n, 1, products.data(), count}.run(rows, count);
  constexpr int64_t width = 512;   // columns at a time, which stay in the cache for all of q
  for (int64_t c0 = 0; c0 < n; c0 += width)
    for (int64_t k = 0; k < count; k++)
      for (int64_t r = 0; r < rows; r++) {
        const double along = products[r * count + k];
        for (int64_t c = c0; c < std::min(n, c0 + width); c++) b[r * n + c] -= along * q[k * n + c];
      }
}

// Gram-Schmidt by blocks of rows: makes the rows of q [count, n], count <= n, orthonormal. Twice is enough.
void orthonormalize(double* q, int64_t count, int64_t n) {
  constexpr int64_t block = 32;
  std::vector<double> products;
  for (int64_t i0 = 0; i0 < count; i0 += block) {
    const int64_t i1 = std::min(count, i0 + block);
    for (int pass = 0; pass < 2; pass++) {
      take_away(q + i0 * n, i1 - i0, q, i0, n, products);
      for (int64_t i = i0; i < i1; i++) {
        for (int again = 0; again < 2; again++) take_away(q + i * n, 1, q + i0 * n, i - i0, n, products);
        const double norm = std::sqrt(squares(q + i * n, n));
        for (int64_t c = 0; c < n; c++) q[i * n + c] /= norm;
      }
    }
  }
}

// Gaussian values [rows, columns] become semi-orthogonal: orthonormal rows, or columns where those are fewer.
void make_orthogonal(double* values, int64_t rows, int64_t columns) {
  if (rows <= columns) return orthonormalize(values, rows, columns);
  std::vector<double> turned(rows * columns);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < columns; c++) turned[c * rows + r] = values[r * columns + c];
  orthonormalize(turned.data(), columns, rows);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < columns; c++) values[r * columns + c] = turned[c * rows + r];
}

}  // namespace

void initialize(const Tensor& x, const Init& init, const RandomStream& stream, int64_t row_groups) {
  const int64_t n = x.size(), rows = x.shape().rank() ? x.dim(0) : 1, columns = n / std::max<int64_t>(1, rows);
  std::vector<double> values(n, init.value);
  if (init.kind == Init::sinusoid) {
    const int64_t width = x.dim(-1);
    for (int64_t i = 0; i < n; i++) {
      const int64_t j = i % width;
      const double angle = double(i / width) / std::pow(10000.0, double(j / 2 * 2) / double(width));
      values[i] = j % 2 ? std::cos(angle) : std::sin(angle);
    }
  } else if (init.kind != Init::constant) {
    double scale = init.value;
    if (init.kind == Init::xavier_normal || init.kind == Init::spectral) {
      // A convolution's fan-out counts its kernel area too, as torch.nn.init does.
      const int64_t area = x.shape().rank() == 4 ? x.dim(2) * x.dim(3) : 1;
      scale = init.kind == Init::spectral ? 1.0 : init.value * std::sqrt(2.0 / double(columns + rows * area));
    }
    for (int64_t i = 0; i < n; i++) values[i] = scale * draw(stream, i, init.kind != Init::uniform);
    if (init.kind == Init::unit_rows)
      for (int64_t r = 0; r < rows; r++) {
        double squares = 0;
        for (int64_t i = r * columns; i < (r + 1) * columns; i++) squares += (values[i] = draw(stream, i, true)) * values[i];
        for (int64_t i = r * columns; i < (r + 1) * columns; i++) values[i] /= std::sqrt(squares / double(columns));
      }
    if (init.kind == Init::orthogonal) {
      for (int64_t i = 0; i < n; i++) values[i] = draw(stream, i, true);
      for (int64_t g = 0; g < row_groups; g++) make_orthogonal(values.data() + g * (n / row_groups), rows / row_groups, columns);
      for (double& v : values) v *= init.value;
    }
    if (init.kind == Init::spectral) {
      const double sigma = largest_singular_value(values.data(), rows, columns);
      for (double& v : values) v /= sigma;
    }
  }
  dispatch(x.dtype(), [&]<class T>() { T* to = x.data<T>(); for (int64_t i = 0; i < n; i++) to[i] = T(values[i]); });
}
