// matrices.h: dense matrices and their singular values by a method that shares nothing with ours, for the tests of layers/.
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "engine/random.h"
#include "layers/parameter.h"

struct Matrix {
  int64_t rows = 0, columns = 0;
  std::vector<double> values;   // [rows, columns]
  Matrix(int64_t rows, int64_t columns) : rows(rows), columns(columns), values(size_t(rows * columns)) {}
  double& at(int64_t r, int64_t c) { return values[r * columns + c]; }
  double at(int64_t r, int64_t c) const { return values[r * columns + c]; }
};

inline double normal_number(const char* stream, int64_t i) {
  const Words w = RandomStream(11, stream).words(0, uint64_t(i), 0);
  return normal_from(w[0], w[1]);
}

inline Matrix random_matrix(int64_t rows, int64_t columns, const char* stream = "matrix") {
  Matrix m(rows, columns);
  for (int64_t i = 0; i < rows * columns; i++) m.values[i] = normal_number(stream, i);
  return m;
}

// One-sided Jacobi: pairs of columns are turned until all are orthogonal; their lengths are then the singular values, largest first.
inline std::vector<double> singular_values(Matrix m) {
  for (double turned = 1; turned > 1e-14;) {
    turned = 0;
    for (int64_t i = 0; i < m.columns; i++)
      for (int64_t j = i + 1; j < m.columns; j++) {
        double a = 0, b = 0, c = 0;
        for (int64_t r = 0; r < m.rows; r++) {
          a += m.at(r, i) * m.at(r, i);
          b += m.at(r, j) * m.at(r, j);
          c += m.at(r, i) * m.at(r, j);
        }
        if (c == 0 || a == 0 || b == 0) continue;
        turned = std::max(turned, std::abs(c) / std::sqrt(a * b));
        const double angle = 0.5 * std::atan2(2 * c, a - b), cosine = std::cos(angle), sine = std::sin(angle);
        for (int64_t r = 0; r < m.rows; r++) {
          const double x = m.at(r, i), y = m.at(r, j);
          m.at(r, i) = cosine * x + sine * y;
          m.at(r, j) = cosine * y - sine * x;
        }
      }
  }
  std::vector<double> lengths;
  for (int64_t c = 0; c < m.columns; c++) {
    double squares = 0;
    for (int64_t r = 0; r < m.rows; r++) squares += m.at(r, c) * m.at(r, c);
    lengths.push_back(std::sqrt(squares));
  }
  std::sort(lengths.rbegin(), lengths.rend());
  return lengths;
}

// The zero-padded correlation of a height x width map with a k x k kernel, as the matrix it is.
inline Matrix correlation_matrix(const double* kernel, int64_t k, int64_t height, int64_t width) {
  Matrix m(height * width, height * width);
  for (int64_t y = 0; y < height; y++)
    for (int64_t x = 0; x < width; x++)
      for (int64_t ky = 0; ky < k; ky++)
        for (int64_t kx = 0; kx < k; kx++) {
          const int64_t from_y = y + ky - k / 2, from_x = x + kx - k / 2;
          if (from_y < 0 || from_y >= height || from_x < 0 || from_x >= width) continue;
          m.at(y * width + x, from_y * width + from_x) += kernel[ky * k + kx];
        }
  return m;
}

// Puts numbers into a parameter of an f32 or f64 store.
inline void fill(const Tensor& to, const std::vector<double>& values) {
  dispatch(to.dtype(), [&]<class T>() {
    for (int64_t i = 0; i < to.size(); i++) to.data<T>()[i] = T(values[i]);
  });
}
