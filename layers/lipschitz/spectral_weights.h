// spectral_weights.h: the weights whose map is alpha W with alpha = factor gamma / sigma(W) (sigma_reparam; gamma fixed at 1: spectral_norm).
//
// Once a step, before the first forward: t = W u, y = W^T t, sigma = |y| / |t|, v = t / |t|, u' = y / |y| (one power iteration, one read of
// W; Zhai et al. 2023, released code). Forward and backward then see alpha as a constant and leave dL/d(alpha W) alpha in W's gradient;
// once a step that is taken on to W and gamma with u', v held fixed:
//   dL/dgamma = factor <G, W> / sigma,   dL/dW = alpha (G - <G, W> / sigma v u'^T),   G = dL/d(alpha W).
#pragma once
#include <set>
#include <string>

#include "engine/workers.h"
#include "layers/parameter.h"

class SpectralWeights {
 public:
  explicit SpectralWeights(ParameterStore& store) : store_(store), state_(store.spectral_weights.size()) {}
  // After the weights are drawn: u becomes the top right singular vector (power iteration until it stands), gamma starts as asked, and the
  // gains of weight_norm become the lengths of the rows.
  void start(Workers& workers);
  // After some tensors came from a file that has nothing in front of these weights: u, gamma and gains that are not among `loaded` start
  // again, so that a plain model's weights make the map that they made there. (spectral_norm has no gamma and cannot.)
  void adopt(Workers& workers, const std::set<std::string>& loaded);
  // One iteration from the stored u; `keep`: the new u is stored (training). Sets every alpha.
  void iterate(Workers& workers, bool keep);
  // Takes the flat gradient of a step from the maps to W and gamma.
  void pull_back(Workers& workers, const Tensor& gradient);
  double sigma(size_t index) const { return state_[index].sigma; }

 private:
  struct State {
    std::vector<double> u, v;   // of the last iteration
    double sigma = 0;
  };
  double start_vector(size_t index);   // u from nothing; returns sigma
  void start_gains(int weight, int gain);

  ParameterStore& store_;
  std::vector<State> state_;
};
