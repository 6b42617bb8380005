// mlp_net.cpp: linear layers with an activation between them. The whole image is one patch, channel by channel.
#include "models/mlp_net.h"

MlpNet::MlpNet(const MlpConfig& config) : config(config) {
  img_size = input_patch = config.img_size;
  in_chans = config.in_chans;
  num_classes = config.num_classes;
  const Scope root(store, config.parts.rules(config.layers));
  for (int i = 0; i < config.layers; i++) {
    const int64_t in = i == 0 ? int64_t(in_chans) * img_size * img_size : config.embed_dim, out = i + 1 == config.layers ? num_classes : config.embed_dim;
    // The scaled activation leaves its division to the layer behind it.
    const double factor = i > 0 && config.parts.activation == Activation::gelu_scaled ? 1 / gelu_divisor : 1;
    layers.emplace_back(root / "layers" / i, in, out, true, root.init().matrix(), factor);
  }
  for (int i = 0; i < config.layers; i++) {
    const Linear& layer = layers[i];
    const bool last = i + 1 == config.layers;
    stages.push_back({layer.name,
                      [this, &layer, last](const Tensor& x, const Mode&) {
                        const Tensor rows = x.view({x.dim(0), layer.in});   // the image comes as one patch [B, 1, in]
                        return last ? layer(rows) : layer.with(this->config.parts.activation, rows);
                      },
                      [this, &layer, last](const Domain& in, BoundTrace& trace) {
                        return last ? layer.bound(in, trace) : layer.with_bound(this->config.parts.activation, in, trace);
                      }});
  }
}
