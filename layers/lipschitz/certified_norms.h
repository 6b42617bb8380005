// certified_norms.h: the spectral norm of every weight of a model, from above: what a bound must be made of to be called certified.
#pragma once
#include <vector>

#include "engine/workers.h"
#include "layers/lipschitz/spectral_norms.h"

// Matrices by their Gram matrix: the power iteration's estimate, raised a little, is proved to be a bound (gram_norm.h; where the model runs on a GPU
// there, engine/proved_norms.h); depthwise convolutions as the zero-padded operators that they are (conv_norm.h). Every rounding is counted, so no number is
// below the truth; each is within about four times the tolerance of the truth.
class CertifiedNorms : public NormSource {
 public:
  explicit CertifiedNorms(const ParameterStore& store)
      : store_(store), sigma_(store.parameters().size(), 0.0), sliding_(sigma_), block_sigmas_(sigma_.size()) {}
  // Of the weights as they are now. The estimates may be old or poor: they only save time.
  void measure(Workers& workers, const SpectralNorms& estimates, double tolerance = 1e-3);
  BoundKind kind() const override { return BoundKind::certified; }
  double sigma(const Parameter& parameter) const override { return sigma_[parameter.index]; }
  std::vector<double> block_sigmas(const Parameter& parameter) const override { return block_sigmas_[parameter.index]; }
  // The zero-padded, strided operator itself, where that is less than what its kernel's norm and the overlap make.
  double sliding_sigma(const Parameter& kernel) const override { return sliding_[kernel.index]; }
  double row_length(const Parameter& table) const override { return longest_row(table); }

 private:
  const ParameterStore& store_;
  std::vector<double> sigma_, sliding_;
  std::vector<std::vector<double>> block_sigmas_;
};
