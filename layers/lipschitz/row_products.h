// row_products.h: products of rows with rows in f64, for what is small or has bands: orthonormal starts, banded Cholesky, frequencies of convolutions.
#pragma once
#include <algorithm>
#include <cstdint>

// c[i, j] += sign * <a_i, b_j> for rows of length k that lie `stride` apart. Every sum is a plain sum of products in some order.
struct RowProducts {
  const double *a, *b;
  int64_t k, stride;
  double sign;
  double* c;
  int64_t c_stride;

  void run(int64_t rows, int64_t columns) const {
    for (int64_t k0 = 0; k0 < k; k0 += depth)   // so that a tile's rows stay in the first cache
      for (int64_t i = 0; i < rows; i += tile)
        for (int64_t j = 0; j < columns; j += tile) {
          const int64_t n = std::min(depth, k - k0);
          if (i + tile <= rows && j + tile <= columns) block(i, j, k0, n);
          else
            for (int64_t r = i; r < std::min(i + tile, rows); r++)
              for (int64_t s = j; s < std::min(j + tile, columns); s++) one(r, s, k0, n);
        }
  }

 private:
  static constexpr int64_t tile = 3, depth = 512;   // 9 sums in registers

  void one(int64_t i, int64_t j, int64_t k0, int64_t n) const {
    const double *x = a + i * stride + k0, *y = b + j * stride + k0;
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t p = 0; p < n; p++) sum += x[p] * y[p];
    c[i * c_stride + j] += sign * sum;
  }

  void block(int64_t i, int64_t j, int64_t k0, int64_t n) const {
    const double *x0 = a + i * stride + k0, *x1 = x0 + stride, *x2 = x1 + stride;
    const double *y0 = b + j * stride + k0, *y1 = y0 + stride, *y2 = y1 + stride;
    double s00 = 0, s01 = 0, s02 = 0, s10 = 0, s11 = 0, s12 = 0, s20 = 0, s21 = 0, s22 = 0;
#pragma omp simd reduction(+ : s00, s01, s02, s10, s11, s12, s20, s21, s22)
    for (int64_t p = 0; p < n; p++) {
      s00 += x0[p] * y0[p], s01 += x0[p] * y1[p], s02 += x0[p] * y2[p];
      s10 += x1[p] * y0[p], s11 += x1[p] * y1[p], s12 += x1[p] * y2[p];
      s20 += x2[p] * y0[p], s21 += x2[p] * y1[p], s22 += x2[p] * y2[p];
    }
    const double sums[tile][tile] = {{s00, s01, s02}, {s10, s11, s12}, {s20, s21, s22}};
    for (int64_t r = 0; r < tile; r++)
      for (int64_t s = 0; s < tile; s++) c[(i + r) * c_stride + j + s] += sign * sums[r][s];
  }
};
