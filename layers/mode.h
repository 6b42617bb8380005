// mode.h: what a forward pass needs to know beside its input. There is no hidden train/eval state anywhere.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "engine/ops.h"

// Gathers the attention entropies of a step: one sum a head, weighted by the number of samples behind it.
struct EntropySums {
  std::vector<double> sums;   // [all heads of the model]
  double samples = 0;
};

// One line of `summary`: what a layer made.
struct LayerTrace {
  std::string name;
  Shape out;
};

struct Mode {
  bool training = false;
  bool checkpoint_activations = false;
  uint64_t seed = 0;
  uint32_t step = 0;
  int64_t first_sample = 0;                    // index of the tensor's first sample within the whole batch of the step
  EntropySums* entropies = nullptr;            // where attention hands in its entropy, if anyone asks
  std::vector<LayerTrace>* trace = nullptr;

  void note(const std::string& name, const Tensor& y) const {
    if (trace) trace->push_back({name, y.shape()});
  }
};
