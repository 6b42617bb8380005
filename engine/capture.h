// capture.h: a whole step as one graph (CUDA graphs). The first runs are eager, one is recorded, the rest replay it.
//
// A step can be recorded if it never waits for the device, never reads from it, asks for no new memory, and finds everything that changes
// (the batch, the number of the step, rates) at fixed places on the device. Where there is no GPU the rules are kept all the same, by
// CaptureRules, and the step runs as it is.
#pragma once
#include <functional>
#include <memory>

#include "engine/device.h"

class StepGraph {
 public:
  // warm_up: eager runs before the recording; they choose algorithms and grow the arena.
  explicit StepGraph(Device device, int warm_up = 2);
  ~StepGraph();
  StepGraph(const StepGraph&) = delete;

  // Runs the step once, however that is done. `step` must do the same each time.
  void run(const std::function<void()>& step);
  bool recorded() const { return runs_ > warm_up_; }

 private:
  struct Graph;   // what the device keeps of the recording
  void record(const std::function<void()>& step);
  void replay(const std::function<void()>& step);

  const Device device_;
  const int warm_up_;
  int runs_ = 0;
  std::unique_ptr<Graph> graph_;
};
