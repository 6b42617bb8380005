// vit.h: the Vision Transformer (Dosovitskiy et al. 2020) in DeiT's sizes, with parts: patches, a class token, learned positions, blocks.
#pragma once
#include "layers/patch_embed.h"
#include "models/sequence_model.h"

struct VitConfig {
  int img_size = 224, patch_size = 16, in_chans = 3, num_classes = 1000;
  int embed_dim = 192, depth = 12, num_heads = 3;
  double mlp_ratio = 4, drop_path_rate = 0;
  bool qkv_bias = true;
  double logit_scale = 1;   // a constant behind the head
  NormPosition norm_position = NormPosition::pre;
  Parts parts;
};

struct Vit : SequenceModel {
  VitConfig config;
  PatchEmbed patch_embed;
  Parameter cls_token, pos_embed;   // [1, 1, D], [1, N + 1, D]

  explicit Vit(const VitConfig& config);
  Tensor forward(const Tensor& patches, const Mode& mode) const override;
  Bound bound(double patch_radius, BoundTrace& trace) const override;
  int64_t widest_activation() const override { return pos_embed.raw().size(); }
  std::vector<NormFold> norm_folds() const override;
};
