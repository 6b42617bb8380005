// spectral_norms.h: the spectral norm of every weight of a model, followed step by step by warm-started power iteration.
#pragma once
#include <memory>
#include <vector>

#include "engine/power_iteration.h"
#include "engine/workers.h"
#include "layers/lipschitz/bound.h"
#include "layers/parameter.h"

// Matrices [out, in] (kernels of non-overlapping patches are that too) and depthwise convolutions. The latter are followed as what they
// are: the zero-padded operator on the layer's map, each channel an operator of its own, never the kernel reshaped to a matrix.
// Power iteration comes from below: what it gives is an estimate, never an upper bound.
class SpectralNorms : public NormSource {
 public:
  explicit SpectralNorms(const ParameterStore& store);
  // v <- W^T W v / |.| and sigma = |W v|, in one pass over each weight.
  void iterate(Workers& workers, int times = 1);
  BoundKind kind() const override { return BoundKind::estimate; }
  double sigma(const Parameter& parameter) const override { return sigma_[parameter.index]; }
  std::vector<double> block_sigmas(const Parameter& parameter) const override { return block_sigmas(parameter.index); }
  double row_length(const Parameter& table) const override { return longest_row(table); }
  double sigma(int index) const { return sigma_[index]; }   // 0 for what has none
  const std::vector<double>& block_sigmas(int index) const { return block_sigmas_[index]; }
  bool has(int index) const { return !vectors_[index].empty(); }
  // The vectors v of all weights, one after another: state of a checkpoint.
  std::vector<float> state() const;
  // The norms as they were last measured, of weights and their blocks: state too, for rows that are written before the next iteration.
  std::vector<double> measured() const;
  void restore(const std::vector<float>& state, const std::vector<double>& measured);

 private:
  const ParameterStore& store_;
  std::vector<int> weights_;                    // indices, largest first, so that threads end together
  std::vector<std::vector<float>> vectors_;     // [parameter]: in (matrix) or [map, channels] (depthwise); then in for each row block
  std::vector<double> sigma_;
  std::vector<std::vector<double>> block_sigmas_;
  // Where the model runs on a GPU: all weights at once, in the order of weights_, a matrix before its row blocks.
  void iterate_on_device(int times);
  void place_on_device();
  std::unique_ptr<PowerIteration> on_device_;
  Tensor device_vectors_;
};
