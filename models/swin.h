// swin.h: Swin Transformer and LipsFormer-Swin, one backbone with parts.
//
// Swin (Liu et al. 2021): pre-norm blocks with shifted windows. LipsFormer (Qi et al. 2023, released code): unshifted windows, two depthwise
// convolution branches in front of the attention, norms after the sums, a learned weight a channel on every branch.
#pragma once
#include "layers/attention.h"
#include "layers/depthwise_conv.h"
#include "layers/mlp.h"
#include "layers/patch_embed.h"
#include "layers/residual.h"
#include "models/model.h"

struct SwinConfig {
  int img_size = 224, patch_size = 4, in_chans = 3, num_classes = 1000;
  int embed_dim = 96;
  std::vector<int> depths{2, 2, 6, 2}, num_heads{3, 6, 12, 24};
  int window_size = 7;
  double mlp_ratio = 4, drop_path_rate = 0.2;
  bool shift_windows = true, conv_branches = false;
  enum NormPosition { pre, post } norm_position = pre;

  NormPart norm = NormPart::layer;
  double norm_eps = 1e-5;
  AttentionPart attention;
  ResidualPart residual = ResidualPart::plain;
  double alpha = 0;   // initial residual weight; 0: 1 / number of blocks
  InitRule init;
};

struct SwinBlock {
  std::string name;
  SwinConfig::NormPosition position;
  DepthwiseConv conv1, conv2;            // only with conv_branches
  Linear nin;
  ResidualBranch branch1, branch2;
  Attention attn;
  Mlp mlp;
  Norm norm1, norm2;
  ResidualBranch branch3, branch4;
  bool has_convs;

  SwinBlock(const Scope& scope, const SwinConfig& config, int64_t width, int64_t side, int heads, bool shifted, double drop_rate);
  Tensor operator()(const Tensor& x, const Mode& mode) const;   // [B, H, W, C] -> [B, H, W, C]
  Bound bound(const Domain& in, BoundTrace& trace) const;
};

struct Swin : Model {
  SwinConfig config;
  PatchEmbed patch_embed;
  struct Stage {
    std::vector<SwinBlock> blocks;
    std::unique_ptr<PatchMerging> downsample;
  };
  std::vector<Stage> stages;
  Norm norm;
  Linear head;

  // The parameters are laid out; store.finalize draws them.
  explicit Swin(const SwinConfig& config);
  Tensor forward(const Tensor& patches, const Mode& mode) const override;
  Bound bound(double patch_radius, BoundTrace& trace) const override;
  std::vector<AttentionInfo> attentions() const override;
  std::vector<Parameter> scales() const override;
};
