// device_step.h: a training step on a GPU: one batch in at fixed places, everything from pixels to updated weights without the host, one report out.
#pragma once
#include "engine/capture.h"
#include "engine/upload.h"
#include "train/device_adamw.h"
#include "train/training.h"

// Fails with the sentence that says why if this recipe has a part that runs on the CPU only.
void check_device_recipe(const Recipe& recipe);

class DeviceStep {
 public:
  explicit DeviceStep(Training& training);
  // Starts the way of a later run's batches to the device, beside what it computes.
  void send(const std::vector<Input>& batches);
  // As Training::step has it. With run.capture the step is recorded as one graph and replayed; a batch that is not full runs as it is.
  // `meanwhile` is called while the device computes.
  StepResult run(const std::vector<Input>& batches, uint32_t number, double lr, const std::function<void(const StepResult&)>& between,
                 const std::function<void()>& meanwhile);

 private:
  void receive(const std::vector<Input>& batches);
  void step();
  StepResult report(const std::vector<Input>& batches) const;
  std::vector<double> samples_that_count(const std::vector<Input>& batches) const;   // over all ranks

  Training& training_;
  DeviceAdamW& optimizer_;
  const int64_t heads_, attentions_;
  Tensor number_;                // i32 [1]: of the step
  Tensor report_;                // f64: loss; heads; sample and token of each attention
  Upload upload_;
  std::vector<Input> sent_;      // what is on its way, on the host
  std::vector<Input> staged_;    // on the device
  std::vector<double> valid_;    // samples that count of each, over all ranks
  double temperature_;                 // with which the graph was recorded
  std::unique_ptr<StepGraph> graph_;
};
