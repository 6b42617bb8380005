// gram_norm.h: upper bounds of spectral norms that hold with every rounding counted. Power iteration comes from below; these do not.
#pragma once
#include <cstdint>
#include <vector>

#include "engine/norm_proof.h"

// An upper bound of |W|_2 for W [rows, columns] by Gram iteration (Delattre et al. 2023), in f64: G <- (G/|G|)^T (G/|G|), `rounds` times;
// then |W| <= |G|_F^(2^-rounds) times what was divided out. Never below the truth; the excess about squares away with each round, down to
// 1e-9. Infinity where W has a number that is not finite.
template <class T> double gram_upper_bound(const T* w, int64_t rows, int64_t columns, int rounds);

// W W^T or W^T W, the smaller one, in f64, for questions about |W|_2 that are answered by Cholesky factorisation.
class GramMatrix {
 public:
  // f32: three times as fast where W is f32; what can be proved is then above the norm by up to 2e-6 |W|_F^2 / |W|_2^2 of it, relative.
  enum class Sums { f64, f32 };
  template <class T> GramMatrix(const T* w, int64_t rows, int64_t columns, Sums sums = Sums::f64);
  // A Gram matrix from elsewhere, its lower triangle in [size, size]. The true one differs by a symmetric matrix of norm <= error; its
  // largest number is about 1.
  GramMatrix(const std::vector<double>& values, int64_t size, double error);
  // True only if |W|_2 <= limit. False also where the limit is above the norm by less than about size * longer side * 1e-16, relative.
  bool within(double limit) const;
  // |W|_2 from below by so many steps of Lanczos.
  double estimate(int steps) const;
  // An upper bound of |W|_2, within four times the tolerance of what can be proved. The estimate may be anything; near the norm it saves proofs, each a
  // factorisation. first: how far above the estimate the first of them is.
  double upper_bound(double estimate, double tolerance, double first) const;
  double upper_bound(double estimate, double tolerance) const { return upper_bound(estimate, tolerance, tolerance); }

 private:
  norm_proof::Gram gram_;
  int64_t stride_ = 0;
  std::vector<double> values_;   // lower triangle of [size, stride]
};
