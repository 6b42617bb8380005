// proved_norms.h: upper bounds of the spectral norms of many matrices, every rounding counted, without the host.
#pragma once
#include "engine/matrix_batch.h"

// As layers/lipschitz/gram_norm.h has it: |A|_2 <= limit if limit^2 I - A A^T (the smaller Gram matrix, f64) has a Cholesky factorisation with room
// for the roundings. A block a matrix; numbers of matrices are f64 [matrices].
class ProvedNorms {
 public:
  ProvedNorms(const std::vector<MatrixBatch::Matrix>& matrices, Device device);
  // within[i] = 1 if |A_i|_2 <= limits[i] is proved, else 0. Keeps the Gram matrices for bound().
  void test(const Tensor& flat, const Tensor& limits, const Tensor& within) const;
  void look(const Tensor& flat) const;   // only keeps the Gram matrices
  // bounds[i] >= |A_i|_2, proved: 1e-10 above a good estimate, else within about 4e-5. Where skip[i] is not 0 it is left as it is; skip may be empty. Not
  // finite for a matrix that is not.
  void bound(const Tensor& estimates, const Tensor& skip, const Tensor& bounds) const;

  struct Row {
    int64_t size, depth, gram;   // of the smaller side; of the longer; where its Gram matrix and its scratch begin
  };

 private:
  std::vector<MatrixBatch::Matrix> matrices_;
  std::vector<Row> places_;
  Tensor table_, gram_, scratch_;
};
