// patch_embed.h: a P x P convolution of stride P as a product with patch rows, then a norm; and the 2x2 merging between stages.
#pragma once
#include "layers/norm.h"

struct PatchEmbed {
  std::string name;
  Parameter weight, bias;   // [C, in, P, P], [C]
  Norm norm;
  int64_t width = 0;

  PatchEmbed() = default;
  PatchEmbed(const Scope& scope, int64_t channels, int64_t width, int64_t patch, NormPart norm_part, double eps)
      : name(scope.path()), width(width) {
    const int64_t fan_in = channels * patch * patch;
    const Scope proj = scope / "proj";
    weight = proj.parameter("weight", {width, channels, patch, patch}, ParameterKind::matrix, scope.rule().convolution(fan_in));
    bias = proj.parameter("bias", {width}, ParameterKind::vector, InitRule::conv_bias(fan_in));
    norm = Norm(scope / "norm", width, norm_part, eps);
  }

  // patch rows [B, N, in*P*P] -> [B, N, C]
  Tensor operator()(const Tensor& patches) const {
    const LayerRange range(name);
    return norm(linear(patches, weight(), bias()));
  }
  // Patches do not overlap, so cutting an image into them changes no distance: the constant is the matrix's.
  Bound bound(const Domain& in, BoundTrace& trace) const {
    const double sigma = trace.norms.sigma(weight);
    const Bound proj = Bound::of(sigma, BoundKind::estimate, {in.tokens, width, sigma * in.radius + l2_norm(bias)});
    return trace.note(name, "PatchEmbed", then(proj, norm.bound(proj.out, trace)));
  }
};

// [B, H, W, C] -> [B, H/2, W/2, 2C]: the four neighbours side by side, a norm, a linear map without bias.
struct PatchMerging {
  std::string name;
  Norm norm;
  Linear reduction;

  PatchMerging() = default;
  PatchMerging(const Scope& scope, int64_t width, NormPart norm_part, double eps)
      : name(scope.path()), norm(scope / "norm", 4 * width, norm_part, eps), reduction(scope / "reduction", 4 * width, 2 * width, false) {}

  Tensor operator()(const Tensor& x) const {
    const int64_t batch = x.dim(0), height = x.dim(1) / 2, width = x.dim(2) / 2;
    Tensor merged;
    {
      const LayerRange range(name);
      merged = patch_merge(x);
    }
    return reduction(norm(merged)).view({batch, height, width, x.dim(3) * 2});
  }
  // Merging moves numbers without changing them: constant 1, and a merged token is at most twice as long.
  Bound bound(const Domain& in, BoundTrace& trace) const {
    const Bound merged = Bound::of(1, BoundKind::certified, {in.tokens / 4, in.width * 4, 2 * in.radius});
    const Bound normed = then(merged, norm.bound(merged.out, trace));
    return trace.note(name, "PatchMerging", then(normed, reduction.bound(normed.out, trace)));
  }
};
