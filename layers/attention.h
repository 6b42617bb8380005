// attention.h: multi-head attention in windows: the part `attention` (dot, cosine, cosine_bounded) between two linear layers.
#pragma once
#include "layers/linear.h"

struct AttentionPart {
  Similarity similarity = Similarity::dot;
  double tau = 10, nu = 1, eps = 1e-6;
};

struct Attention {
  std::string name;
  Linear qkv, proj;
  Parameter bias_table;   // [(2w-1)^2, heads]
  WindowAttention config;
  int64_t width = 0;
  int first_head = 0;     // of this layer among all heads of the model

  Attention() = default;
  Attention(const Scope& scope, int64_t width, int heads, int window, int shift, const AttentionPart& part)
      : name(scope.path()), qkv(scope / "qkv", width, 3 * width), proj(scope / "proj", width, width),
        config{.heads = heads, .window_height = window, .window_width = window, .shift = shift, .similarity = part.similarity, .tau = part.tau,
               .nu = part.nu, .eps = part.eps}, width(width) {
    const int64_t side = 2 * window - 1;
    bias_table = scope.parameter("relative_position_bias_table", {side * side, heads}, ParameterKind::table, {Init::normal, 0.02});
  }

  // [B, H, W, C] -> [B, H, W, C]
  Tensor operator()(const Tensor& x, const Mode& mode) const {
    const Tensor projected = qkv(x);
    Attended attended;
    {
      const LayerRange range(name);
      attended = window_attention(projected, bias_table(), config);
    }
    if (mode.entropies && !recomputing()) {
      const float* entropy = attended.entropy.data<float>();
      for (int h = 0; h < config.heads; h++) mode.entropies->sums[first_head + h] += double(entropy[h]) * double(x.dim(0));
    }
    return proj(attended.out);
  }

  Bound bound(const Domain& in, BoundTrace& trace) const;
  int64_t tokens() const { return int64_t(config.window_height) * config.window_width; }
};
