// step_count.h: what the ops of a step compute and move on a device, counted without computing it, beside a floor.
#pragma once
#include <optional>

#include "train/training.h"

// Bytes of an image, forward and backward.
struct Traffic {
  double forward = 0, backward = 0;
  double both() const { return forward + backward; }
};

// A part of every block ("qkv", "attention", "proj", "norms and sums", "mlp", "convolutions"), or "outside of blocks".
using PartTraffic = std::map<std::string, Traffic>;
using StageTraffic = std::map<std::string, PartTraffic>;   // by stage of the model, by part
inline const std::string outside_blocks = "outside of blocks";

struct StepCount {
  int64_t images = 0;                                  // of the batch; what follows is of all of them
  std::map<std::string, OpCost> ops;                   // by op and direction
  std::map<std::string, std::map<std::string, OpCost>> layers;
  OpCost total() const;
  StageTraffic stages(const Model& model) const;   // of an image
};
// Forward and backward of the recipe's whole batch on one device. The optimizer and the spectral norms are not in it.
StepCount count_step(Training& training);
// The recipe as it is counted: one shard, and its batch in one pass.
Recipe recipe_to_count(Recipe recipe);

// The same at level G: each product reads its operands and writes its result once, biases, GELU and their gradients
// are in its epilogue; a norm, the sum before it and stochastic depth are one kernel; attention is one kernel a direction. Parameters are not
// counted. Empty for a model that has no table there.
std::optional<StageTraffic> floor_of_step(const Model& model);
