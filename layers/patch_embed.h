// patch_embed.h: a P x P convolution of stride P as a product with patch rows, then a norm; and the 2x2 merging between stages.
#pragma once
#include "layers/norm.h"

struct PatchEmbed {
  std::string name;
  Weight weight;    // [C, in, P, P]
  Parameter bias;   // [C]
  Norm norm;
  int64_t in = 0, width = 0;

  PatchEmbed() = default;
  PatchEmbed(const Scope& scope, int64_t channels, int64_t width, int64_t patch, const NormPart& norm_part)
      : name(scope.path()), in(channels * patch * patch), width(width) {
    const Scope proj = scope / "proj";
    weight = Weight(proj, {width, channels, patch, patch}, scope.init().convolution(in));
    if (scope.rules().bias) bias = proj.parameter("bias", {width}, ParameterKind::vector, InitRule::conv_bias(in));
    norm = Norm(scope / "norm", width, norm_part);
  }

  // patch rows [B, N, in*P*P] -> [B, N, C]
  Tensor operator()(const Tensor& patches, const Mode& mode) const {
    const LayerRange range(name);
    return norm(linear(patches, weight.matrix(), bias(), weight.alpha()), mode);
  }
  // The residual stream reads the norm.
  NormFold norm_fold() const { return {&norm, {}, &weight}; }
  // Patches do not overlap, so cutting an image into them changes no distance: the constant is the matrix's.
  Bound bound(const Domain& in_domain, BoundTrace& trace) const {
    const Real sigma = weight.norm(trace.norms);
    const Domain out{in_domain.tokens, width, reach(sigma, in_domain.radius) + (bias ? l2_norm(bias) : 0)};
    const Bound proj = Bound::tokenwise(sigma, weight.norm_kind(trace.norms), in, out);
    return trace.note(name, "PatchEmbed", then(proj, norm.bound(proj.out, trace)));
  }
};

// [B, H, W, C] -> [B, H/2, W/2, 2C]: the four neighbours side by side, a norm, a linear map. It has a bias only where a norm was folded into it.
struct PatchMerging {
  std::string name;
  Norm norm;
  Linear reduction;

  PatchMerging() = default;
  PatchMerging(const Scope& scope, int64_t width, const NormPart& norm_part, bool bias)
      : name(scope.path()), norm(scope / "norm", 4 * width, norm_part), reduction(scope / "reduction", 4 * width, 2 * width, bias) {}

  Tensor operator()(const Tensor& x, const Mode& mode) const {
    const int64_t batch = x.dim(0), height = x.dim(1) / 2, width = x.dim(2) / 2;
    Tensor merged;
    {
      const LayerRange range(name);
      merged = patch_merge(x);
    }
    return reduction(norm(merged, mode)).view({batch, height, width, x.dim(3) * 2});
  }
  NormFold norm_fold() const { return {&norm, {&reduction.weight}}; }
  // Merging moves numbers without changing them: constant 1, and a merged token is at most twice as long; its RMS is at most the largest
  // of the four.
  Bound bound(const Domain& in, BoundTrace& trace) const {
    const Bound merged = Bound::of(1, BoundKind::certified, {in.tokens / 4, in.width * 4, 2 * in.radius}, 1);
    const Bound normed = then(merged, norm.bound(merged.out, trace));
    return trace.note(name, "PatchMerging", then(normed, reduction.bound(normed.out, trace)));
  }
};

// A K x K convolution of stride S and padding P with overlapping patches, as a product with unfolded rows; then a norm.
// [B, H, W, in] -> [B, H', W', C]
struct OverlapConv {
  std::string name;
  Weight weight;    // [C, in, K, K]
  Parameter bias;   // [C]
  Norm norm;
  int64_t in = 0, width = 0, map_side = 0;
  int kernel = 3, stride = 2, padding = 1;

  OverlapConv() = default;
  OverlapConv(const Scope& conv, const Scope& norm_scope, int64_t channels, int64_t width, int64_t map_side, int kernel, int stride, int padding,
              const NormPart& norm_part)
      : name(conv.path()), in(channels), width(width), map_side(map_side), kernel(kernel), stride(stride), padding(padding) {
    const int64_t fan_in = channels * kernel * kernel;
    weight = Weight(conv, {width, channels, kernel, kernel}, conv.init().convolution(fan_in));
    conv.store().slides(weight.raw.index, map_side, stride, padding);
    if (conv.rules().bias) bias = conv.parameter("bias", {width}, ParameterKind::vector, InitRule::conv_bias(fan_in));
    norm = Norm(norm_scope, width, norm_part);
  }
  int64_t side() const { return (map_side + 2 * padding - kernel) / stride + 1; }

  Tensor operator()(const Tensor& x, const Mode& mode) const {
    const LayerRange range(name);
    const int64_t batch = x.dim(0);
    const Tensor y = linear(unfold(x, kernel, stride, padding), weight.matrix(), bias(), weight.alpha());
    return norm(y, mode).view({batch, side(), side(), width});
  }
  // The residual stream reads the norm.
  NormFold norm_fold() const { return {&norm, {}, &weight}; }
  // l2: the convolution's own norm on its map, as far as it is known. A patch has at most K*K tokens, so its row is at most K times as long as the
  // longest of them; the kernel reshaped to a matrix is the map behind that, never the convolution itself.
  Bound bound(const Domain& in_domain, BoundTrace& trace) const {
    const Real sigma = weight.norm(trace.norms);
    const Domain out{side() * side(), width, reach(sigma * kernel, in_domain.radius) + (bias ? l2_norm(bias) : 0)};
    const Bound conv = Bound::of(weight.sliding_norm(trace.norms), weight.norm_kind(trace.norms), out, kernel * sigma * std::sqrt(Real(in) / Real(width)));
    return trace.note(name, "OverlapConv", then(conv, norm.bound(out, trace)));
  }
};
