// orthogonalize.cpp: X <- a X + (b A + c A^2) X with A = X X^T, or from the right with A = X^T X where the columns are fewer.
#include "train/orthogonalize.h"

#include <algorithm>
#include <cmath>

#include "engine/blas.h"

namespace {

const std::vector<Coefficients>& all_coefficients() {
  const Quintic keller{3.4445, -4.7750, 2.0315};
  const auto by1024 = [](double a, double b, double c) { return Quintic{a / 1024, b / 1024, c / 1024}; };
  static const std::vector<Coefficients> sets{
      {"muon5", 1.20238, {keller, keller, keller, keller, keller}},
      {"lipschitz5", 1.14503,
       {{4.0848, -6.8946, 2.9270}, {3.9505, -6.3029, 2.6377}, {3.7418, -5.5913, 2.3037}, {2.8769, -3.1427, 1.2046},
        {2.8366, -3.0525, 1.2012}}},
      {"youjiacheng6", 1.0,
       {by1024(3955, -8306, 5008), by1024(3735, -6681, 3463), by1024(3799, -6499, 3211), by1024(4019, -6385, 2906),
        by1024(2677, -3029, 1162), by1024(2172, -1833, 682)}},
      {"polar_express5", 1.14114,
       {{8.156554524902461, -22.48329292557795, 15.878769915207462},
        {4.042929935166739, -2.808917465908714, 0.5000178451051316},
        {3.8916678022926607, -2.772484153217685, 0.5060648178503393},
        {3.285753657755655, -2.3681294933425376, 0.46449024233003106},
        {2.3465413258596377, -1.7097828382687081, 0.42323551169305323}}},
      {"polar_express8", 1.00001,
       {{8.2051, -22.9019, 16.4607}, {4.0664, -2.8612, 0.5184}, {3.9096, -2.8234, 0.5250}, {3.2856, -2.4153, 0.4853},
        {2.2779, -1.6198, 0.3985}, {1.8726, -1.2307, 0.3585}, {1.8564, -1.2132, 0.3568}, {1.8750, -1.2500, 0.3750}}}};
  return sets;
}

// x /= |x|_F, safe for numbers of any size. False for zero and for what is not finite: x is then left as it is.
template <class T> bool divide_by_norm(T* x, int64_t n) {
  double largest = 0, squares = 0;
  for (int64_t i = 0; i < n; i++) largest = std::max(largest, std::abs(double(x[i])));
  if (!(largest > 0) || !std::isfinite(largest)) return false;
  for (int64_t i = 0; i < n; i++) squares += (double(x[i]) / largest) * (double(x[i]) / largest);
  const double root = std::sqrt(squares);
  for (int64_t i = 0; i < n; i++) x[i] = T(double(x[i]) / largest / root);
  return true;
}

// Where the steps of one matrix work: X and its next value, A and the polynomial of A. The numbers are scratch.
template <class T> struct Iteration {
  int64_t rows, columns, small;
  T *x, *next, *a, *polynomial;

  Iteration(T* x, int64_t rows, int64_t columns)
      : rows(rows), columns(columns), small(std::min(rows, columns)), x(x), next(scratch<T>(0, rows * columns)),
        a(scratch<T>(1, small * small)), polynomial(scratch<T>(2, small * small)) {}

  bool wide() const { return rows <= columns; }

  void gram() {
    gemm({.transpose_a = !wide(), .transpose_b = wide(), .m = small, .n = small, .k = std::max(rows, columns)}, x, x, a);
  }

  // |A - I|_F: 0 once X is orthogonal.
  double distance() const {
    double squares = 0;
    for (int64_t i = 0; i < small; i++)
      for (int64_t j = 0; j < small; j++) squares += std::pow(double(a[i * small + j]) - (i == j), 2);
    return std::sqrt(squares);
  }

  void step(const Quintic& q) {   // A is that of x
    std::copy_n(a, small * small, polynomial);
    gemm({.m = small, .n = small, .k = small, .alpha = q.c, .beta = q.b}, a, a, polynomial);
    for (int64_t i = 0; i < small; i++) polynomial[i * small + i] += T(q.a);
    gemm({.m = rows, .n = columns, .k = small}, wide() ? polynomial : x, wide() ? x : polynomial, next);
    std::swap(x, next);
  }
};

}  // namespace

template <class T> T* scratch(int slot, int64_t count) {
  thread_local std::vector<std::vector<T>> slots;
  if (slot >= int(slots.size())) slots.resize(slot + 1);
  if (int64_t(slots[slot].size()) < count) slots[slot].resize(count);
  return slots[slot].data();
}

double Coefficients::map(double x) const {
  for (const Quintic& q : steps) x = q.a * x + q.b * x * x * x + q.c * x * x * x * x * x;
  return x;
}

const Coefficients& coefficients_named(const std::string& name) {
  for (const Coefficients& set : all_coefficients())
    if (name == set.name) return set;
  fail(Exit::config, "there are no orthogonalisation coefficients ", name,
       ": choose muon5, lipschitz5, youjiacheng6, polar_express5 or polar_express8");
}

std::vector<std::string> coefficient_names() {
  std::vector<std::string> names;
  for (const Coefficients& set : all_coefficients()) names.push_back(set.name);
  return names;
}

template <class T> void orthogonalize(T* x, int64_t rows, int64_t columns, const Coefficients& coefficients) {
  if (!divide_by_norm(x, rows * columns)) return;
  Iteration<T> iteration(x, rows, columns);
  for (const Quintic& q : coefficients.steps) {
    iteration.gram();
    iteration.step(q);
  }
  if (iteration.x != x) std::copy_n(iteration.x, rows * columns, x);
}

template <class T> void polar_factor(T* x, int64_t rows, int64_t columns) {
  if (!divide_by_norm(x, rows * columns)) return;
  const std::vector<Quintic>& steps = coefficients_named("polar_express8").steps;
  // The last step takes 1 - e to 1 - 2.5 e^3, so the one begun this near is the last that changes anything.
  const double near = sizeof(T) == 8 ? 3e-6 : 3e-3;
  constexpr int most = 40;   // a singular value of zero stays zero, and never comes near
  Iteration<T> iteration(x, rows, columns);
  for (int t = 0; t < most; t++) {
    iteration.gram();
    const bool last = iteration.distance() < near;
    iteration.step(last ? steps.back() : steps[std::min<size_t>(t, steps.size() - 1)]);
    if (last) break;
  }
  if (iteration.x != x) std::copy_n(iteration.x, rows * columns, x);
}

template float* scratch(int, int64_t);
template double* scratch(int, int64_t);
template void orthogonalize(float*, int64_t, int64_t, const Coefficients&);
template void orthogonalize(double*, int64_t, int64_t, const Coefficients&);
template void polar_factor(float*, int64_t, int64_t);
template void polar_factor(double*, int64_t, int64_t);
