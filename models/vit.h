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
  bool mean_pool = false;   // features are the mean of all tokens, and there is no class token
  NormPosition norm_position = NormPosition::pre;
  Parts parts;
};

struct Vit : SequenceModel {
  VitConfig config;
  PatchEmbed patch_embed;
  Parameter cls_token, pos_embed;   // [1, 1, D] or none, [1, tokens, D]

  explicit Vit(const VitConfig& config);
  Domain input_domain(double patch_radius) const override {
    const int64_t side = img_size / input_patch;
    return {side * side, int64_t(in_chans) * input_patch * input_patch, patch_radius};
  }
  int64_t widest_activation() const override { return pos_embed.info().shape.size(); }
  std::vector<NormFold> norm_folds() const override;

 private:
  Tensor embed(const Tensor& patches, const Mode& mode) const;   // [B, N, in*P*P] -> [B, 1, N + 1, D], without class token N
  Bound embed_bound(const Domain& in, BoundTrace& trace) const;
};
