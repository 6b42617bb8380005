// spectral_weights.h: the weights whose map is alpha W with alpha = factor gamma / sigma(W) (sigma_reparam; gamma fixed at 1: spectral_norm).
//
// Once a step, before the first forward, one power iteration (engine/spectral_scale.h; Zhai et al. 2023, released code). Forward and backward then
// see alpha as a constant and leave dL/d(alpha W) alpha in W's gradient; once a step that is taken on to W and gamma with the vectors held fixed.
#pragma once
#include <set>
#include <string>

#include "engine/spectral_scale.h"
#include "engine/workers.h"
#include "layers/parameter.h"

class SpectralWeights {
 public:
  explicit SpectralWeights(ParameterStore& store);
  // After the weights are drawn: u becomes the top right singular vector (power iteration until it stands), gamma starts as asked, and the
  // gains of weight_norm become the lengths of the rows.
  void start(Workers& workers);
  // After some tensors came from a file that has nothing in front of these weights: u, gamma and gains that are not among `loaded` start
  // again, so that a plain model's weights make the map that they made there. (spectral_norm has no gamma and cannot.)
  void adopt(Workers& workers, const std::set<std::string>& loaded);
  // One iteration from the stored u; `keep`: the new u is stored (training). Sets every alpha.
  void iterate(bool keep);
  // Takes the flat gradient of a step from the maps to W and gamma.
  void pull_back(const Tensor& gradient) const { scale_.pull_back(store_.values_in_use(), store_.buffer_values(), gradient); }
  double sigma(size_t index) const { return scale_.sigma().values()[index]; }

 private:
  double start_vector(size_t index);   // u from nothing; returns sigma
  void start_gains(int weight, int gain);
  void say_changed();

  ParameterStore& store_;
  const SpectralScale scale_;
};
