// proved_norms.h: upper bounds of the spectral norms of many matrices, every rounding counted, on the device, in a few launches whatever their number.
#pragma once
#include "engine/matrix_batch.h"

// |A|_2 <= limit if limit^2 I - A A^T (the smaller Gram matrix, f64) has a Cholesky factorisation with room for the roundings (norm_proof.h). Gram matrices
// in tiles, a block each; a proof is a block's too. They take 8 n (n + 1) bytes a matrix, n its smaller side. Numbers of matrices are f64 [matrices].
class ProvedNorms {
 public:
  // Matrices may overlap: row blocks beside the whole.
  ProvedNorms(const std::vector<MatrixBatch::Matrix>& matrices, Device device);
  void look(const Tensor& flat) const;   // keeps the Gram matrices for what follows
  // within[i] = 1 if |A_i|_2 <= limits[i] is proved, else 0. Looks first.
  void test(const Tensor& flat, const Tensor& limits, const Tensor& within) const;
  // How far above the estimate the first proof is tried, and what the others are within four times of.
  struct Search {
    double first = 1e-10, tolerance = 1e-5;
  };
  // bounds[i] >= |A_i|_2, proved: `first` above a good estimate, else within four times the tolerance. Where skip[i] is not 0 it is left as it is; skip may
  // be empty. Infinity for a matrix with a number that is not finite.
  void bound(const Tensor& estimates, const Tensor& skip, const Tensor& bounds, const Search& search) const;

  struct Row {
    int64_t offset, size, depth;              // the smaller side and the longer
    int64_t along_size, along_depth, gram;    // strides of both in the flat buffer; where its Gram matrix begins
  };
  struct Tile {
    int64_t matrix, row, column;   // of the Gram matrix
  };

 private:
  int64_t matrices_ = 0, tiles_ = 0;
  Tensor table_, tile_table_, scales_, gram_;
};
