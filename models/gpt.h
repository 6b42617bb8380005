// gpt.h: a decoder-only Transformer over tokens, as in "Training Transformers with Enforced Lipschitz Constants" (Newhouse et al. 2025):
// embedded tokens, causal attention with rotary positions, a linear head. The paper's parts: no norms, no biases, convex residuals, 1/d attention.
#pragma once
#include "models/sequence_model.h"

struct GptConfig {
  int vocab_size = 65, context = 256;
  int embed_dim = 256, depth = 3, num_heads = 4;
  double mlp_ratio = 4, drop_path_rate = 0;
  bool qkv_bias = true;
  double rotary_base = 10000;
  int rotary_still = 0;        // frequencies that are zero
  double logit_scale = 1;      // a constant behind the head
  NormPosition norm_position = NormPosition::pre;
  Parts parts;
};

struct Gpt : SequenceModel {
  GptConfig config;
  Parameter embed;   // [V, D]

  explicit Gpt(const GptConfig& config);
  Domain input_domain(double) const override { return {context, config.embed_dim}; }
  int64_t widest_activation() const override { return int64_t(context) * config.embed_dim; }
  // The rms bound as the paper and its code compute it, for comparison: it divides by GELU's slope twice and takes many heads for one, so it is
  // below the truth for some weights and never enters ours. `overshoot` multiplies the norm of every matrix.
  double published_bound(const NormSource& norms, double overshoot = 1) const;
};
