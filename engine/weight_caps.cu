// weight_caps.cu: small kernels over the numbers of matrices, and maps made of products.
#include "engine/weight_caps.h"

#include <algorithm>
#include <limits>

#include "engine/blas.h"
#include "engine/flat.h"
#include "engine/map.h"
#include "engine/muon_step.h"
#include "engine/soft_cap.h"

namespace {

HD bool finite(double x) { return x - x == 0; }
HD bool moves(const float* numbers) { return finite(numbers[step_grad_norm]); }

struct Where {
  int64_t vector, matrix;
};

template <class T> struct Unit {   // x /= |x| of one side, taken from the vectors or left there
  const MatrixBatch::Row* rows;
  const Where* where;
  double* x;
  T* vectors;
  const double* skip;
  double* norms;
  bool on_left, loads, stores;
  template <class Team> HD void operator()(int64_t i, const Team& team) const {
    const MatrixBatch::Row m = rows[i];
    const Where w = where[i];
    const int64_t n = on_left ? m.rows : m.columns;
    double* v = x + (on_left ? m.left : m.right);
    T* kept = vectors + w.vector;
    if (loads) team.each(n, [&](int64_t j) { v[j] = double(kept[j]); });
    const double norm = sqrt(team.template sum<double>(n, [&](int64_t j) { return v[j] * v[j]; }));
    if (norms && team.leads()) norms[w.matrix] = norm;
    if (!(norm > 0) || !finite(norm)) return;
    const bool keeps = stores && !(skip && skip[w.matrix] != 0);
    team.each(n, [&](int64_t j) {
      v[j] /= norm;
      if (keeps) kept[j] = T(v[j]);
    });
  }
};

struct Pick {
  const double* from;
  const Where* where;
  double* to;
  HD void operator()(int64_t i) const { to[i] = from[where[i].matrix]; }
};

struct DecayFactor {
  double strength;
  const float* numbers;
  double* factors;
  HD void operator()(int64_t i) const { factors[i] = moves(numbers) ? 1 - double(numbers[step_matrix_lr]) * strength : 1.0; }
};

struct OuterFactor {
  const double *sigma, *limits;   // no limits: -strength sigma
  double strength;
  const float* numbers;
  double* factors;
  HD void operator()(int64_t i) const {
    const double change = limits ? limits[i] - sigma[i] : -strength * sigma[i];
    factors[i] = moves(numbers) && sigma[i] > 0 && finite(sigma[i]) ? change : 0.0;
  }
};

struct EnforcingFactor {
  const double *within, *bounds, *targets;
  const float* numbers;
  double* factors;
  HD void operator()(int64_t i) const {
    const bool divides = moves(numbers) && within[i] == 0 && finite(bounds[i]) && bounds[i] > 0;
    factors[i] = divides ? targets[i] / bounds[i] : 1.0;
  }
};

template <class T> struct Strength {
  const double *scales, *bounds, *updates;
  double sigma_max, decay;
  const float* numbers;
  T* strengths;
  HD void operator()(int64_t i) const {
    const double lr = numbers[step_matrix_lr], k = bounds ? bounds[i] / scales[i] : sigma_max * (1 - lr * decay) + lr * updates[i];
    const double strength = moves(numbers) && finite(k) ? soft_cap_strength(sigma_max, k) / (scales[i] * scales[i]) : 0.0;
    strengths[2 * i] = T(-strength), strengths[2 * i + 1] = T(strength);
  }
};

template <class T> struct Assign {   // w = limit o
  T* w;
  const T* o;
  double limit;
  const float* numbers;
  HD void operator()(int64_t i) const {
    if (moves(numbers)) w[i] = T(limit * double(o[i]));
  }
};

template <class T> struct Difference {   // limit o - w
  const T *w, *o;
  T* y;
  T limit;
  HD void operator()(int64_t i) const { y[i] = limit * o[i] - w[i]; }
};

template <class T> struct AddToDiagonal {
  T* a;
  int64_t n;
  T value;
  HD void operator()(int64_t i) const { a[i * n + i] += value; }
};

template <class T> struct Capped {
  T* w;
  const T *o, *product;
  T limit, part;
  const double* skip;
  const float* numbers;
  HD void operator()(int64_t i) const {
    if (!moves(numbers) || (skip && *skip != 0)) return;
    w[i] = (1 - part) * w[i] + T(0.5) * part * (limit * o[i] + w[i] - product[i]);
  }
};

template <class T> struct CapRow {
  T* table;
  int64_t width;
  double shrink;   // so that rounding does not take it above 1
  template <class Team> HD void operator()(int64_t r, const Team& team) const {
    T* row = table + r * width;
    const double rms = sqrt(team.template sum<double>(width, [&](int64_t j) { return double(row[j]) * double(row[j]); }) / double(width));
    if (!(rms > 1)) return;
    const double factor = shrink / rms;
    team.each(width, [&](int64_t j) { row[j] = T(double(row[j]) * factor); });
  }
};

template <class T> struct Average {
  const T* w;
  T* average;
  T decay;
  const float* numbers;
  HD void operator()(int64_t i) const {
    if (moves(numbers)) average[i] = decay * average[i] + (1 - decay) * w[i];
  }
};

// Products of f32 numbers as f32: a cap in ten bits would be none.
struct WholeProducts {
  const bool before = allow_tf32();
  WholeProducts() { allow_tf32() = false; }
  ~WholeProducts() { allow_tf32() = before; }
};

// w += strength w w^T w, by the smaller Gram matrix.
void add_cubic(const Tensor& w, const Tensor& strength) {
  const int64_t rows = w.dim(0), columns = w.dim(1), small = std::min(rows, columns);
  const bool wide = rows <= columns;
  const Tensor a = Tensor::empty({small, small}, w.dtype(), w.device()), old = Tensor::like(w);
  gemm({.transpose_a = !wide, .transpose_b = wide, .m = small, .n = small, .k = std::max(rows, columns)}, w, w, a);
  old.copy_from(w);
  gemm({.m = rows, .n = columns, .k = small, .beta = 1}, wide ? a : old, wide ? old : a, w, {.scale = strength});
}

}  // namespace

TopSingular::TopSingular(const std::vector<MatrixBatch::Matrix>& matrices, const std::vector<int64_t>& vector_at, Device device)
    : sigma_(Tensor::zeros({int64_t(matrices.size())}, DType::f64, device)) {
  for (const bool wide : {true, false}) {
    std::vector<MatrixBatch::Matrix> some;
    std::vector<Where> where;
    for (size_t i = 0; i < matrices.size(); i++) {
      if ((matrices[i].rows <= matrices[i].columns) != wide) continue;
      some.push_back(matrices[i]);
      where.push_back({vector_at[i], int64_t(i)});
    }
    if (!some.empty()) parts_.push_back({MatrixBatch(some, device), wide, table_of(where, device), Tensor::zeros({int64_t(some.size())}, DType::f64, device)});
  }
}

void TopSingular::iterate(const Tensor& weights, const Tensor& vectors, int times, const Tensor& skip) const {
  for (const Part& part : parts_) {
    const MatrixBatch& batch = part.batch;
    const auto unit = [&](bool left, bool loads, bool stores, bool measures) {
      with_weight_type(weights.dtype(), [&]<class T>() {
        map_rows(weights.device(), batch.size(),
                 Unit<T>{batch.rows(), reinterpret_cast<const Where*>(part.table.raw()), left ? batch.left() : batch.right(), vectors.data<T>(),
                         skip ? skip.data<double>() : nullptr, measures ? sigma_.data<double>() : nullptr, left, loads, stores});
      });
    };
    const auto to = [&](bool left) { left ? batch.to_left(weights) : batch.to_right(weights); };
    const bool near = part.wide;   // the smaller side: left of a wide matrix
    unit(near, true, false, false);
    for (int t = 0; t < times; t++) {
      to(!near), unit(!near, false, false, false);
      to(near), unit(near, false, true, false);
    }
    to(!near), unit(!near, false, false, true);
  }
}

void TopSingular::add(const Tensor& weights, const Tensor& factors) const {
  for (const Part& part : parts_) {
    map(weights.device(), part.batch.size(), Pick{factors.data<double>(), reinterpret_cast<const Where*>(part.table.raw()), part.factors.data<double>()});
    part.batch.add_outer(weights, part.factors);
  }
}

void decay_factors(double strength, const Tensor& numbers, const Tensor& factors) {
  map(factors.device(), factors.size(), DecayFactor{strength, numbers.data<float>(), factors.data<double>()});
}
void hammer_factors(const Tensor& sigma, const Tensor& limits, const Tensor& numbers, const Tensor& factors) {
  map(factors.device(), factors.size(), OuterFactor{sigma.data<double>(), limits.data<double>(), 0, numbers.data<float>(), factors.data<double>()});
}
void spectral_decay_factors(const Tensor& sigma, double strength, const Tensor& numbers, const Tensor& factors) {
  map(factors.device(), factors.size(), OuterFactor{sigma.data<double>(), nullptr, strength, numbers.data<float>(), factors.data<double>()});
}
void enforcing_factors(const Tensor& within, const Tensor& bounds, const Tensor& targets, const Tensor& numbers, const Tensor& factors) {
  map(factors.device(), factors.size(),
      EnforcingFactor{within.data<double>(), bounds.data<double>(), targets.data<double>(), numbers.data<float>(), factors.data<double>()});
}

void soft_cap_strengths(const SoftCapStep& s, const Tensor& numbers, const Tensor& strengths) {
  with_weight_type(strengths.dtype(), [&]<class T>() {
    map(strengths.device(), s.scales.size(),
        Strength<T>{s.scales.data<double>(), s.bounds ? s.bounds.data<double>() : nullptr, s.updates ? s.updates.data<double>() : nullptr, s.sigma_max, s.decay,
                    numbers.data<float>(), strengths.data<T>()});
  });
}

void soft_cap_map(const Tensor& w, const Tensor& strengths) {
  const WholeProducts exact;
  add_cubic(w, strengths.slice(0, 1));
  add_cubic(w, strengths.slice(1, 1));
}

void stiefel_map(const Tensor& w, double limit, const Quintics& polar, const Tensor& numbers) {
  const WholeProducts exact;
  const Tensor o = orthogonal(w, polar);
  with_weight_type(w.dtype(), [&]<class T>() { map(w.device(), w.size(), Assign<T>{w.data<T>(), o.data<T>(), limit, numbers.data<float>()}); });
}

void hard_cap_map(const Tensor& w, double limit, double part, const Quintics& polar, const Tensor& skip, const Tensor& numbers) {
  const WholeProducts exact;
  const int64_t rows = w.dim(0), columns = w.dim(1), small = std::min(rows, columns), large = std::max(rows, columns);
  const bool wide = rows <= columns;
  const Tensor o = orthogonal(w, polar), difference = Tensor::like(w), product = Tensor::like(w);
  const Tensor apart = Tensor::empty({small, small}, w.dtype(), w.device());
  with_weight_type(w.dtype(), [&]<class T>() {
    map(w.device(), w.size(), Difference<T>{w.data<T>(), o.data<T>(), difference.data<T>(), T(limit)});
    gemm({.transpose_a = !wide, .transpose_b = wide, .m = small, .n = small, .k = large, .alpha = -1}, o, w, apart);
    map(w.device(), small, AddToDiagonal<T>{apart.data<T>(), small, T(limit)});
    const Tensor sign = orthogonal(apart, polar);
    gemm({.m = rows, .n = columns, .k = small}, wide ? sign : difference, wide ? difference : sign, product);
    map(w.device(), w.size(), Capped<T>{w.data<T>(), o.data<T>(), product.data<T>(), T(limit), T(part), skip ? skip.data<double>() : nullptr,
                                        numbers.data<float>()});
  });
}

void cap_rows(const Tensor& table) {
  const int64_t width = table.dim(-1);
  with_weight_type(table.dtype(), [&]<class T>() {
    map_rows(table.device(), table.size() / width, CapRow<T>{table.data<T>(), width, 1 - double(std::numeric_limits<T>::epsilon())});
  });
}

void average_weights(const Tensor& weights, const Tensor& average, double decay, const Tensor& numbers) {
  with_weight_type(weights.dtype(), [&]<class T>() {
    map(weights.device(), weights.size(), Average<T>{weights.data<T>(), average.data<T>(), T(decay), numbers.data<float>()});
  });
}
