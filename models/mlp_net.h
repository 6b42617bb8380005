// mlp_net.h: the plain multilayer perceptron on a flattened image.
#pragma once
#include "layers/linear.h"
#include "models/model.h"
#include "models/parts.h"

struct MlpConfig {
  int img_size = 32, in_chans = 3, num_classes = 10;
  int embed_dim = 256, layers = 3;   // hidden width; linear layers in all
  Parts parts;
};

struct MlpNet : Model {
  MlpConfig config;
  std::vector<Linear> layers;

  explicit MlpNet(const MlpConfig& config);
  Domain input_domain(double patch_radius) const override { return {1, layers[0].in, patch_radius}; }
  const Linear& classifier() const override { return layers.back(); }
  int64_t widest_activation() const override { return std::max<int64_t>(layers[0].in, config.embed_dim); }
};
