// power_iteration.h: one step of power iteration on every linear map of a model at once, in a few launches whatever their number:
// sigma = |A v| for |v| = 1, then v = A^T A v / |A^T A v|. From below: an estimate, never an upper bound.
#pragma once
#include <vector>

#include "engine/matrix_batch.h"

class PowerIteration {
 public:
  // W [rows, columns] at `offset` of the flat weights; its v [columns] at `vector` of the flat vectors.
  struct Matrix {
    int64_t offset, rows, columns, vector;
  };
  // Zero-padded correlation of each channel with its own kernel [channels, kernel, kernel] on a map; v [height * width, stride], channels side
  // by side, the stride at least their number. Its sigma is the largest of the channels'.
  struct Depthwise {
    int64_t offset, channels, kernel, height, width, vector, stride;
  };
  PowerIteration(const std::vector<Matrix>& matrices, const std::vector<Depthwise>& maps, Device device);

  // weights: flat, f32 or f64; vectors: flat f32, replaced by the next ones.
  void iterate(const Tensor& weights, const Tensor& vectors) const;
  const Tensor& sigma() const { return sigma_; }   // f64 [matrices, then maps], of the last iteration

 private:
  MatrixBatch batch_;
  int64_t maps_ = 0, elements_ = 0, channels_ = 0;
  Tensor vector_table_;                                       // of the matrices
  Tensor map_table_, channel_table_, image_, back_, norms_;   // of the maps
  Tensor sigma_;
};
