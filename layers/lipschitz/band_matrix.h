// band_matrix.h: a symmetric matrix with a band around its diagonal, and a proof in f64 that its eigenvalues lie below a limit.
#pragma once
#include <cstdint>
#include <vector>

class BandMatrix {
 public:
  BandMatrix(int64_t size, int64_t band);   // zero; numbers (i, j) with i - band <= j <= i are kept
  double* row(int64_t i) { return values_.data() + i * lead_ + left_; }   // row(i)[j]
  // True only if limit I - B is positive semidefinite for each symmetric B that differs from this matrix by a matrix of norm <= error.
  // False also where the limit exceeds the largest eigenvalue by less than about 1e-16 band^2 limit + 2 error.
  bool below(double limit, double error) const;
  // The largest eigenvalue of a positive semidefinite matrix, from below: so many steps of Lanczos.
  double largest_eigenvalue(int most_steps) const;

 private:
  // Row i lies at i * (lead + 1) and holds j from i - left to i + block - 1; so the whole looks like a dense matrix with rows `lead` apart,
  // of which any block x block tile that touches the band can be read (what is left of the band is zero) and written.
  static constexpr int64_t block = 24;
  int64_t size_, band_, left_, lead_;
  std::vector<double> values_;
};
