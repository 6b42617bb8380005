// device_constraint.h: the constraints where the model runs on a GPU: constraint.h's methods and promises, all weights at once, nothing asked of the host.
#pragma once
#include "engine/proved_norms.h"
#include "engine/weight_caps.h"
#include "train/optimizer.h"

class DeviceConstraint {
 public:
  // updates: the norm of a step of rate 1 in normalised units of each of weight_matrices(store); empty where the rule gives none.
  DeviceConstraint(ParameterStore& store, const OptimizerOptions& options, const std::vector<double>& updates);
  // After a step whose numbers (engine/flat.h) these are.
  void apply(const Tensor& numbers) const;
  Tensor vectors;   // as Constraint has them

 private:
  Tensor matrix_of(size_t i) const;
  void estimate(const Tensor& skip) const;
  void map(const Tensor& numbers) const;
  void enforce(const Tensor& numbers) const;

  ParameterStore& store_;
  const ConstraintOptions options_;
  const double weight_decay_;
  const bool promises_;
  const std::vector<WeightMatrix> matrices_;
  Quintics polar_;
  std::vector<int> embeddings_;
  std::unique_ptr<MatrixBatch> batch_;
  std::unique_ptr<TopSingular> top_;       // null where no method looks
  std::unique_ptr<ProvedNorms> proved_;    // null where nothing is proved
  Tensor limits_, targets_, scales_, updates_;              // f64 [matrices]
  Tensor within_, bounds_, factors_, strengths_;            // of the step
};
