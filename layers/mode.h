// mode.h: what a forward pass needs to know beside its input. There is no hidden train/eval state anywhere.
#pragma once
#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/ops.h"

// How long the inputs of an attention were: the largest |X|_F^2 of a sample and the largest |x|^2 of a token.
struct InputSquares {
  double sample = 0, token = 0;
  void take(const InputSquares& other) {
    sample = std::max(sample, other.sample);
    token = std::max(token, other.token);
  }
};

// Gathers the attention entropies of a step: one sum a head, weighted by the number of samples behind it.
struct EntropySums {
  std::vector<double> sums;            // [all heads of the model]
  std::vector<InputSquares> inputs;    // [all attentions]
  double samples = 0;
  // On a GPU sums and inputs are gathered there instead, f64: the heads from heads_at on, then sample and token of each attention.
  Tensor report;
  int64_t heads_at = 0;

  // An attention's mean entropies [heads] f32 over the samples of its input x [B, ...].
  void note(int attention, int first_head, const Tensor& entropy, const Tensor& x);
  void add(const EntropySums& other);
};

// One line of `summary`: what a layer made.
struct LayerTrace {
  std::string name;
  Shape out;
};

struct Mode {
  bool training = false;                       // statistics of this batch, and buffers that remember them
  bool deterministic = false;                  // drop nothing, even in training
  bool checkpoint_activations = false;
  uint64_t seed = 0;
  StepNumber step;
  int64_t first_sample = 0;                    // index of the tensor's first sample within the whole batch of the step
  EntropySums* entropies = nullptr;            // where attention hands in its entropy, if anyone asks
  double temperature = 1;                      // attention logits are divided by it, besides the layer's own
  std::vector<LayerTrace>* trace = nullptr;

  std::vector<double>* branch_variances = nullptr;   // of every residual branch in the order they are added, for Admin's initialisation

  bool random() const { return training && !deterministic; }
  void note_branch(const Tensor& f) const;
  void note(const std::string& name, const Tensor& y) const {
    if (trace) trace->push_back({name, y.shape()});
  }
};
