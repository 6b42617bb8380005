// spectral_maps.cpp: the maps, by products of matrices on the smaller side.
#include "train/spectral_maps.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/blas.h"
#include "train/orthogonalize.h"

namespace {

// w += strength w w^T w, by the smaller Gram matrix.
template <class T> void add_cubic(T* w, int64_t rows, int64_t columns, double strength) {
  const bool wide = rows <= columns;
  const int64_t small = std::min(rows, columns), large = std::max(rows, columns);
  T *a = scratch<T>(4, small * small), *old = scratch<T>(5, rows * columns);
  gemm({.transpose_a = !wide, .transpose_b = wide, .m = small, .n = small, .k = large}, w, w, a);
  std::copy_n(w, rows * columns, old);
  gemm({.m = rows, .n = columns, .k = small, .alpha = strength, .beta = 1}, wide ? a : old, wide ? old : a, w);
}

}  // namespace

double storable(double limit, int64_t smaller, DType dtype) {
  const double epsilon = dtype == DType::f64 ? std::numeric_limits<double>::epsilon() : double(std::numeric_limits<float>::epsilon());
  return limit * (1 - 2 * epsilon * std::sqrt(double(smaller)));
}

template <class T> void soft_cap(T* w, int64_t rows, int64_t columns, double strength) {
  add_cubic(w, rows, columns, -strength);
  add_cubic(w, rows, columns, strength);
}

template <class T> void stiefel(T* w, int64_t rows, int64_t columns, double limit) {
  polar_factor(w, rows, columns);
  for (int64_t i = 0; i < rows * columns; i++) w[i] = T(limit * double(w[i]));
}

// min(s, b) = (b + s - (b - s) sign(b - s)) / 2 on matrices, with O = msign(W): (b O + W - msign(b I - O W^T) (b O - W)) / 2, the sign
// taken on the smaller side (b I - O^T W from the right where the columns are fewer). W must not be far above the cap: b O - W cancels.
template <class T> void hard_cap(T* w, int64_t rows, int64_t columns, double limit, double part) {
  const bool wide = rows <= columns;
  const int64_t n = rows * columns, small = std::min(rows, columns), large = std::max(rows, columns);
  T *o = scratch<T>(4, n), *difference = scratch<T>(5, n), *sign = scratch<T>(6, small * small), *product = scratch<T>(7, n);
  std::copy_n(w, n, o);
  polar_factor(o, rows, columns);
  for (int64_t i = 0; i < n; i++) difference[i] = T(limit) * o[i] - w[i];
  gemm({.transpose_a = !wide, .transpose_b = wide, .m = small, .n = small, .k = large, .alpha = -1}, o, w, sign);
  for (int64_t i = 0; i < small; i++) sign[i * small + i] += T(limit);
  polar_factor(sign, small, small);
  gemm({.m = rows, .n = columns, .k = small}, wide ? sign : difference, wide ? difference : sign, product);
  const T keep = T(1 - part), half = T(0.5 * part);
  for (int64_t i = 0; i < n; i++) w[i] = keep * w[i] + half * (T(limit) * o[i] + w[i] - product[i]);
}

template <class T> double power_iteration(const T* w, int64_t rows, int64_t columns, T* x, double* left, double* right) {
  const bool wide = rows <= columns;
  const int64_t small = std::min(rows, columns);
  const auto normalize = [](double* v, int64_t n) {
    double squares = 0;
    for (int64_t i = 0; i < n; i++) squares += v[i] * v[i];
    const double norm = std::sqrt(squares);
    if (norm > 0 && std::isfinite(norm))
      for (int64_t i = 0; i < n; i++) v[i] /= norm;
    return norm;
  };
  const auto to_left = [&] {   // left = W right
    for (int64_t r = 0; r < rows; r++) {
      double s = 0;
#pragma omp simd reduction(+ : s)
      for (int64_t c = 0; c < columns; c++) s += double(w[r * columns + c]) * right[c];
      left[r] = s;
    }
    return normalize(left, rows);
  };
  const auto to_right = [&] {   // right = W^T left
    std::fill_n(right, columns, 0.0);
    for (int64_t r = 0; r < rows; r++)
      for (int64_t c = 0; c < columns; c++) right[c] += left[r] * double(w[r * columns + c]);
    return normalize(right, columns);
  };
  double* near = wide ? left : right;
  std::copy_n(x, small, near);
  normalize(near, small);
  if ((wide ? to_right() : to_left()) == 0) return 0;
  if ((wide ? to_left() : to_right()) == 0) return 0;
  std::copy_n(near, small, x);
  return wide ? to_right() : to_left();
}

template <class T> void add_rank_one(T* w, int64_t rows, int64_t columns, double change, const double* left, const double* right) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < columns; c++) w[r * columns + c] = T(double(w[r * columns + c]) + change * left[r] * right[c]);
}

template void soft_cap(float*, int64_t, int64_t, double);
template void soft_cap(double*, int64_t, int64_t, double);
template void stiefel(float*, int64_t, int64_t, double);
template void stiefel(double*, int64_t, int64_t, double);
template void hard_cap(float*, int64_t, int64_t, double, double);
template void hard_cap(double*, int64_t, int64_t, double, double);
template double power_iteration(const float*, int64_t, int64_t, float*, double*, double*);
template double power_iteration(const double*, int64_t, int64_t, double*, double*, double*);
template void add_rank_one(float*, int64_t, int64_t, double, const double*, const double*);
template void add_rank_one(double*, int64_t, int64_t, double, const double*, const double*);
