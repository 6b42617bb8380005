// promised_norms.h: the spectral norms that a constraint promises, whatever the weights are: what a bound is made of before training.
#pragma once
#include "layers/lipschitz/bound.h"
#include "layers/parameter.h"

struct PromisedNorms : NormSource {
  double sigma_max;
  explicit PromisedNorms(double sigma_max) : sigma_max(sigma_max) {}

  BoundKind kind() const override { return BoundKind::certified; }
  // |W|_2 <= sigma_max sqrt(out / in). Held in g groups of rows, each is within sigma_max sqrt(out / (g in)), their stack within sqrt g times it,
  // and a block is part of a group.
  double sigma(const Parameter& weight) const override {
    const ParameterInfo& info = weight.info();
    return sigma_max * std::sqrt(double(info.shape[0]) / (double(info.size()) / double(info.shape[0])));
  }
  std::vector<double> block_sigmas(const Parameter& weight) const override {
    const ParameterInfo& info = weight.info();
    return std::vector<double>(size_t(info.row_blocks), sigma(weight) / std::sqrt(double(info.row_groups)));
  }
  // Rows of embeddings are kept at a root mean square of 1 at most.
  double row_length(const Parameter& table) const override { return std::sqrt(double(table.raw().dim(-1))); }

  // A promise is one only if everything that a bound looks at is held: no biases, no gains, no depthwise kernels.
  static bool covers(const ParameterStore& store) {
    for (const ParameterInfo& info : store.parameters())
      if (info.kind != ParameterKind::matrix && info.kind != ParameterKind::embedding) return false;
    return true;
  }
};
