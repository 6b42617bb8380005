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
  Tensor forward(const Tensor& patches, const Mode& mode) const override;
  Bound bound(double patch_radius, BoundTrace& trace) const override;
  int64_t widest_activation() const override { return std::max<int64_t>(layers[0].in, config.embed_dim); }
};
