// spectral_scale.h: weights whose map is alpha W with alpha = factor gamma / sigma(W): one power iteration on all of them, and the gradient's way back.
#pragma once
#include "engine/matrix_batch.h"

class SpectralScale {
 public:
  // gamma: its place in the flat weights and gradients, -1 where it is fixed at 1; u [columns] and alpha: in the flat buffers.
  struct Weight {
    MatrixBatch::Matrix matrix;
    int64_t gamma, u, alpha;
    double factor;
  };
  SpectralScale(const std::vector<Weight>& weights, Device device);

  // t = W u, y = W^T t, sigma = |y| / |t|, v = t / |t|, u' = y / |y|; alpha = factor gamma / sigma; with `keep` u becomes u' in the buffers.
  void iterate(const Tensor& weights, const Tensor& buffers, bool keep) const;
  // The gradient holds alpha G of each, G = dL/d(alpha W); with the last v and u':
  //   dL/dgamma = factor <G, W> / sigma,   dL/dW = alpha (G - <G, W> / sigma v u'^T)
  void pull_back(const Tensor& weights, const Tensor& buffers, const Tensor& gradient) const;
  const Tensor& sigma() const { return sigma_; }   // f64 [weights], of the last iteration

 private:
  MatrixBatch batch_;
  Tensor table_, vectors_, sigma_, along_;
};
