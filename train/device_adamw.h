// device_adamw.h: AdamW where the model runs on a GPU: norms, clip and update in a few launches, nothing asked of the host.
#pragma once
#include "engine/flat.h"
#include "train/device_constraint.h"

class DeviceAdamW : public Optimizer {
 public:
  DeviceAdamW(ParameterStore& store, const OptimizerOptions& options);
  // Of some parameters only; the gradient norm that is clipped is then that of these. updates: as DeviceConstraint takes them.
  DeviceAdamW(ParameterStore& store, const OptimizerOptions& options, const std::vector<bool>& parameters, const std::vector<double>& updates);
  // A step that the host does not look into: first its numbers to where the device finds them, then norms, clip, the rule, the constraint and the
  // average. Nothing moves if the gradient's norm is not finite.
  void begin_step(double lr);
  void update_on_device();
  GradientNorms gradient_norms() const;   // as last measured; waits for the device

  GradientNorms gather(Workers& workers) override;
  std::map<std::string, Tensor*> state() override;
  std::map<std::string, const Packing*> packings() const override;

 protected:
  void step(Workers& workers, double lr, const GradientNorms& norms) override;
  // The numbers of a step, as engine/flat.h has them, before its norm is known.
  virtual std::vector<double> numbers_of(double lr) const;
  virtual void move();   // the rule
  Tensor numbers_;       // f32, on the device

 private:
  void measure();
  void give_numbers(double lr);

  const Packing packing_;
  const FlatPieces all_, own_;   // for the norms; for the update
  const bool is_all_;
  Tensor m_, v_, decay_, squares_, own_squares_;
  std::unique_ptr<DeviceConstraint> on_device_;   // of the constraint; null: none
};
