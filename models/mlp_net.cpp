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
}

Tensor MlpNet::forward(const Tensor& patches, const Mode& mode) const {
  Tensor x = patches.view({patches.dim(0), patches.dim(2)});   // [B, in]
  for (size_t i = 0; i < layers.size(); i++) {
    x = i + 1 < layers.size() ? layers[i].with(config.parts.activation, x) : layers[i](x);
    mode.note(layers[i].name, x);
  }
  return x;
}

Bound MlpNet::bound(double patch_radius, BoundTrace& trace) const {
  Bound b = Bound::tokenwise(1, BoundKind::certified, layers[0].in, {1, layers[0].in, patch_radius});
  for (size_t i = 0; i < layers.size(); i++)
    b = then(b, i + 1 < layers.size() ? layers[i].with_bound(config.parts.activation, b.out, trace) : layers[i].bound(b.out, trace));
  return b;
}
