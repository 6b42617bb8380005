// swin.h: Swin Transformer and LipsFormer-Swin, one backbone with parts.
//
// Swin (Liu et al. 2021): pre-norm blocks with shifted windows. LipsFormer (Qi et al. 2023, released code): unshifted windows, two depthwise
// convolution branches in front of the attention, norms after the sums, a learned weight a channel on every branch.
#pragma once
#include "layers/patch_embed.h"
#include "models/model.h"
#include "models/transformer_block.h"

struct SwinConfig {
  int img_size = 224, patch_size = 4, in_chans = 3, num_classes = 1000;
  int embed_dim = 96;
  std::vector<int> depths{2, 2, 6, 2}, num_heads{3, 6, 12, 24};
  int window_size = 7;
  double mlp_ratio = 4, drop_path_rate = 0.2;
  bool qkv_bias = true;
  bool shift_windows = true, conv_branches = false;
  bool merge_bias = false;   // of the linear maps between stages
  double logit_scale = 1;    // a constant behind the head
  NormPosition norm_position = NormPosition::pre;
  Parts parts;
};

struct SwinBlock {
  std::string name;
  std::optional<ConvBranches> convs;
  TransformerBlock core;

  SwinBlock(const Scope& scope, const SwinConfig& config, int64_t width, int64_t side, int heads, bool shifted, double drop_rate);
  Tensor operator()(const Tensor& x, const Mode& mode) const;   // [B, H, W, C] -> [B, H, W, C]
  Bound bound(const Domain& in, BoundTrace& trace) const;
};

struct Swin : Model {
  SwinConfig config;
  PatchEmbed patch_embed;
  struct Level {
    std::vector<SwinBlock> blocks;
    std::unique_ptr<PatchMerging> downsample;
  };
  std::vector<Level> levels;   // the paper's stages: blocks on a map of one size
  Norm norm;
  Linear head;

  // The parameters are laid out; store.finalize draws them.
  explicit Swin(const SwinConfig& config);
  Domain input_domain(double patch_radius) const override {
    const int64_t side = img_size / input_patch;
    return {side * side, int64_t(in_chans) * input_patch * input_patch, patch_radius};
  }
  const Linear& classifier() const override { return head; }
  int64_t widest_activation() const override { return int64_t(img_size / input_patch) * (img_size / input_patch) * config.embed_dim; }
  std::vector<const Attention*> attentions() const override;
  std::vector<const ResidualBranch*> branches() const override;
  std::vector<NormFold> norm_folds() const override;

 private:
  void add_stages();
};
