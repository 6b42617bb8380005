// device_adamw.h: AdamW where the model runs on a GPU: norms, clip and update in a few launches, nothing asked of the host.
#pragma once
#include "engine/flat.h"
#include "train/optimizer.h"

class DeviceAdamW : public Optimizer {
 public:
  DeviceAdamW(ParameterStore& store, const OptimizerOptions& options);
  // A step that the host does not look into: first its numbers to where the device finds them, then norms, clip and update. Nothing moves if
  // the gradient's norm is not finite.
  void begin_step(double lr);
  void update_on_device();
  GradientNorms gradient_norms() const;   // as last measured; waits for the device

  GradientNorms gather(Workers& workers) override;
  std::map<std::string, Tensor*> state() override;

 protected:
  void step(Workers& workers, double lr, const GradientNorms& norms) override;

 private:
  void put_numbers(double lr, double norm, double clip);
  void update_weights();

  const FlatPieces flat_;
  Tensor m_, v_, decay_, squares_, numbers_;
};
