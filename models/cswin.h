// cswin.h: CSwin (Dong et al. 2021) and LipsFormer-CSwin, one backbone with parts.
//
// CSwin: overlapping stem and merges, pre-norm blocks whose heads attend in stripes, LePE. LipsFormer-CSwin: stem and merges without overlap,
// two depthwise convolution branches, no norm at the attention, one norm behind the MLP, no final norm.
#pragma once
#include "layers/patch_embed.h"
#include "models/model.h"
#include "models/transformer_block.h"

struct CSwinConfig {
  int img_size = 224, in_chans = 3, num_classes = 1000;
  int embed_dim = 64;
  std::vector<int> depths{1, 2, 21, 1}, num_heads{2, 4, 8, 16}, stripe_widths{1, 2, 7, 7};
  double mlp_ratio = 4, drop_path_rate = 0.2;
  bool qkv_bias = true;
  bool conv_branches = false;   // LipsFormer-CSwin
  Parts parts;
};

struct CSwinBlock {
  std::string name;
  std::optional<ConvBranches> convs;
  TransformerBlock core;

  CSwinBlock(const Scope& scope, const CSwinConfig& config, int64_t width, int side, int stage, double drop_rate);
  Tensor operator()(const Tensor& x, const Mode& mode) const;   // [B, H, W, C] -> [B, H, W, C]
  Bound bound(const Domain& in, BoundTrace& trace) const;
};

struct CSwin : Model {
  CSwinConfig config;
  OverlapConv stem;
  std::vector<OverlapConv> merges;   // behind all levels but the last
  std::vector<std::vector<CSwinBlock>> levels;   // the paper's stages: blocks on a map of one size
  Norm norm;
  Linear head;

  explicit CSwin(const CSwinConfig& config);
  Domain input_domain(double pixel_radius) const override { return {int64_t(img_size) * img_size, in_chans, pixel_radius}; }
  const Linear& classifier() const override { return head; }
  int64_t widest_activation() const override { return stem.side() * stem.side() * config.embed_dim; }
  std::vector<const Attention*> attentions() const override;
  std::vector<const ResidualBranch*> branches() const override;
  std::vector<NormFold> norm_folds() const override;

 private:
  void add_stages();
};
