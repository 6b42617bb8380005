// capture_cuda.cpp: recording and replaying by CUDA graphs.
#include "engine/capture.h"
#include "engine/capture_rules.h"
#include "engine/check.h"
#include "engine/device_cuda.h"

struct StepGraph::Graph {
  cudaGraphExec_t executable = nullptr;
  ~Graph() {
    if (executable) cudaGraphExecDestroy(executable);
  }
};

StepGraph::StepGraph(Device device, int warm_up) : device_(device), warm_up_(warm_up) {}
StepGraph::~StepGraph() = default;

void StepGraph::record(const std::function<void()>& step) {
  if (device_.kind == Device::cpu) return step();
  cuda_check(cudaSetDevice(device_.index), "cudaSetDevice");
  const cudaStream_t stream = compute_stream();
  cudaGraph_t graph = nullptr;
  cuda_check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  try {
    const CaptureRules rules(device_);
    step();
  } catch (...) {   // leave the stream usable, then say what went wrong
    cudaStreamEndCapture(stream, &graph);
    if (graph) cudaGraphDestroy(graph);
    throw;
  }
  cuda_check(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
  graph_ = std::make_unique<Graph>();
  const cudaError_t made = cudaGraphInstantiate(&graph_->executable, graph, 0);
  cudaGraphDestroy(graph);
  cuda_check(made, "cudaGraphInstantiate");
  cuda_check(cudaGraphLaunch(graph_->executable, stream), "cudaGraphLaunch");   // recording ran nothing
}

void StepGraph::replay(const std::function<void()>& step) {
  if (device_.kind == Device::cpu) return step();
  cuda_check(cudaSetDevice(device_.index), "cudaSetDevice");
  cuda_check(cudaGraphLaunch(graph_->executable, compute_stream()), "cudaGraphLaunch");
}
