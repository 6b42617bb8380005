// capture_fibers.cpp: without a GPU a recorded step runs under the rules of a recording each time, and its memory must lie where it lay.
#include "engine/capture.h"
#include "engine/capture_rules.h"
#include "engine/check.h"
#include "engine/memory.h"

struct StepGraph::Graph {
  uint64_t addresses = 0;
};

StepGraph::StepGraph(Device device, int warm_up) : device_(device), warm_up_(warm_up) {}
StepGraph::~StepGraph() = default;

void StepGraph::record(const std::function<void()>& step) {
  const CaptureRules rules(device_);
  const AddressTrace trace;
  step();
  graph_ = std::make_unique<Graph>(Graph{trace.hash()});
}

void StepGraph::replay(const std::function<void()>& step) {
  const CaptureRules rules(device_);
  const AddressTrace trace;
  step();
  check(trace.hash() == graph_->addresses, "[capture] the step asked for other memory than when it was recorded: a replay would read old places");
}
