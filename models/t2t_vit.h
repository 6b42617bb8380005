// t2t_vit.h: T2T-ViT (Yuan et al. 2021), performer form: two soft splits with a token transformer each, a third split, then a ViT.
#pragma once
#include "layers/patch_embed.h"
#include "models/sequence_model.h"

struct T2tConfig {
  int img_size = 224, in_chans = 3, num_classes = 1000;
  int embed_dim = 384, depth = 14, num_heads = 6;
  int token_dim = 64;
  double mlp_ratio = 3, drop_path_rate = 0.1;
  bool qkv_bias = false;   // of the blocks
  Parts parts;
};

// One-head attention with positive features: y = v + proj(attention), then y + mlp(norm(y)).
struct TokenPerformer {
  std::string name;
  Norm norm1, norm2;
  Linear kqv, proj, fc1, fc2;   // kqv: rows k, q, v
  Buffer features;              // w [e / 2, e], fixed
  int64_t width = 0;

  TokenPerformer() = default;
  TokenPerformer(const Scope& scope, int64_t in, int64_t width, const NormPart& norm);
  Tensor operator()(const Tensor& x, const Mode& mode) const;   // [B, T, in] -> [B, T, e]
  Bound bound(const Domain& in, BoundTrace& trace) const;

 private:
  Tensor drop(const Tensor& x, const char* which, const Mode& mode) const;
};

struct T2tVit : SequenceModel {
  T2tConfig config;
  TokenPerformer attention1, attention2;
  Linear project;
  Parameter cls_token;   // [1, 1, D]
  Buffer pos_embed;      // [1, N + 1, D], sinusoids

  explicit T2tVit(const T2tConfig& config);
  Domain input_domain(double pixel_radius) const override { return {int64_t(img_size) * img_size, in_chans, pixel_radius}; }
  int64_t widest_activation() const override { return split(0).side(img_size) * split(0).side(img_size) * in_chans * 49; }
  std::vector<NormFold> norm_folds() const override;

 private:
  struct Split {
    int kernel, stride, padding;
    int64_t side(int64_t s) const { return (s + 2 * padding - kernel) / stride + 1; }
  };
  void add_token_stages(int64_t tokens);
  static Split split(int i) { return i == 0 ? Split{7, 4, 2} : Split{3, 2, 1}; }
};
