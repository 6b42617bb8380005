// svd.h: functions of a matrix's singular values by one-sided Jacobi, and small models of bare parameters, for the tests of optimizers.
#pragma once
#include <doctest/doctest.h>

#include <functional>

#include "tests/layers/matrices.h"
#include "train/optimizer.h"

// U f(S) V^T for m = U S V^T; f(0) must be 0.
inline Matrix with_singular_values(Matrix m, const std::function<double(double)>& f) {
  if (m.rows < m.columns) {
    Matrix turned(m.columns, m.rows);
    for (int64_t r = 0; r < m.rows; r++)
      for (int64_t c = 0; c < m.columns; c++) turned.at(c, r) = m.at(r, c);
    const Matrix result = with_singular_values(turned, f);
    for (int64_t r = 0; r < m.rows; r++)
      for (int64_t c = 0; c < m.columns; c++) m.at(r, c) = result.at(c, r);
    return m;
  }
  const int64_t n = m.columns;
  Matrix v(n, n);
  for (int64_t i = 0; i < n; i++) v.at(i, i) = 1;
  const auto turn = [](Matrix& x, int64_t i, int64_t j, double cosine, double sine) {
    for (int64_t r = 0; r < x.rows; r++) {
      const double a = x.at(r, i), b = x.at(r, j);
      x.at(r, i) = cosine * a + sine * b;
      x.at(r, j) = cosine * b - sine * a;
    }
  };
  const auto product = [&](int64_t i, int64_t j) {
    double s = 0;
    for (int64_t r = 0; r < m.rows; r++) s += m.at(r, i) * m.at(r, j);
    return s;
  };
  for (double largest = 1; largest > 1e-14;) {
    largest = 0;
    for (int64_t i = 0; i < n; i++)
      for (int64_t j = i + 1; j < n; j++) {
        const double a = product(i, i), b = product(j, j), c = product(i, j);
        if (c == 0 || a == 0 || b == 0) continue;
        largest = std::max(largest, std::abs(c) / std::sqrt(a * b));
        const double angle = 0.5 * std::atan2(2 * c, a - b);
        turn(m, i, j, std::cos(angle), std::sin(angle));
        turn(v, i, j, std::cos(angle), std::sin(angle));
      }
  }
  Matrix result(m.rows, n);
  for (int64_t k = 0; k < n; k++) {
    const double sigma = std::sqrt(product(k, k)), factor = sigma > 0 ? f(sigma) / sigma : 0;
    for (int64_t r = 0; r < m.rows; r++)
      for (int64_t c = 0; c < n; c++) result.at(r, c) += factor * m.at(r, k) * v.at(c, k);
  }
  return result;
}

inline double spectral_norm(const Matrix& m) {
  if (m.rows >= m.columns) return singular_values(m).front();
  Matrix turned(m.columns, m.rows);
  for (int64_t r = 0; r < m.rows; r++)
    for (int64_t c = 0; c < m.columns; c++) turned.at(c, r) = m.at(r, c);
  return singular_values(turned).front();
}

inline double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double largest = 0;
  for (size_t i = 0; i < a.size(); i++) {
    if (std::isnan(a[i]) || std::isnan(b[i])) return INFINITY;
    largest = std::max(largest, std::abs(a[i] - b[i]));
  }
  return largest;
}

// A store of the given parameters with Gaussian values, and gradients drawn anew for each step.
struct BareModel {
  ParameterStore store;
  Workers workers;
  BareModel(std::vector<ParameterInfo> infos, DType dtype, int threads = 1, int shards = 2, double deviation = 1) : workers(threads) {
    for (ParameterInfo& info : infos) {
      info.init = {Init::normal, deviation};
      store.add(info);
    }
    store.finalize(dtype, shards, 5);
  }
  // The sum over shards, as gather() leaves it; the numbers are a function of name, step and place.
  void draw_gradients(int64_t step, double size = 1) {
    for (int s = 0; s < store.shards(); s++)
      for (size_t p = 0; p < store.parameters().size(); p++) {
        const Tensor g = store.slice_of(store.gradient(s), int(p));
        const std::string stream = str("gradient.", store.parameters()[p].name, ".", s, ".", step);
        std::vector<double> values(g.size());
        for (int64_t i = 0; i < g.size(); i++) values[i] = size * normal_number(stream.c_str(), i);
        fill(g, values);
      }
  }
  std::vector<double> gradient(int p) const {   // the sum
    std::vector<double> sum = store.slice_of(store.gradient(0), p).values();
    for (int s = 1; s < store.shards(); s++) {
      const std::vector<double> other = store.slice_of(store.gradient(s), p).values();
      for (size_t i = 0; i < sum.size(); i++) sum[i] += other[i];
    }
    return sum;
  }
  std::vector<double> weight(int p) const { return store.raw(p).values(); }
  Matrix matrix(int p, int64_t group = 0) const {
    const ParameterInfo& info = store.parameters()[p];
    const std::vector<double> all = weight(p);
    Matrix m(info.shape[0] / info.row_groups, info.size() / info.shape[0]);
    std::copy_n(all.begin() + group * m.rows * m.columns, m.rows * m.columns, m.values.begin());
    return m;
  }
  void step(Optimizer& optimizer, int64_t number, double lr, double size = 1) {
    draw_gradients(number, size);
    optimizer.update(workers, lr, optimizer.gather(workers));
  }
};

inline ParameterInfo matrix_info(const std::string& name, const Shape& shape, int64_t row_groups = 1) {
  ParameterInfo info{name, shape, ParameterKind::matrix};
  info.row_groups = row_groups;
  return info;
}
