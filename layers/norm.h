// norm.h: the part `norm`: layer, center, none, each with its Lipschitz constant.
#pragma once
#include <optional>

#include "layers/linear.h"

enum class NormPart { layer, center, none };

struct Norm {
  std::string name;
  NormPart kind = NormPart::none;
  Parameter weight, bias;   // [C], [C]
  int64_t width = 0;
  double eps = 1e-5;

  Norm() = default;
  Norm(const Scope& scope, int64_t width, NormPart kind, double eps) : name(scope.path()), kind(kind), width(width), eps(eps) {
    if (kind == NormPart::none) return;
    weight = scope.parameter("weight", {width}, ParameterKind::vector, Init::ones());
    bias = scope.parameter("bias", {width}, ParameterKind::vector, Init::zeros());
  }

  Tensor operator()(const Tensor& x) const {
    const LayerRange range(name);
    switch (kind) {
      case NormPart::layer: return layer_norm(x, weight(), bias(), eps);
      case NormPart::center: return center_norm(x, weight(), bias());
      case NormPart::none: return x;
    }
    return x;
  }
  // center: D/(D-1) max|w|, a linear map. layer: max|w| / sqrt(eps), reached where a token's variance vanishes; but whatever comes in,
  // what goes out has norm at most max|w| sqrt(D) + |b|.
  Bound bound(const Domain& in, BoundTrace& trace) const {
    if (kind == NormPart::none) return Bound::of(1, BoundKind::certified, in);
    const double gain = max_abs(weight), shift = l2_norm(bias), d = double(width);
    if (kind == NormPart::center) {
      const double constant = d / (d - 1) * gain;
      return trace.note(name, "CenterNorm", Bound::of(constant, BoundKind::certified, {in.tokens, width, constant * in.radius + shift}));
    }
    const Domain out{in.tokens, width, gain * std::sqrt(d) + shift};
    return trace.note(name, "LayerNorm", eps > 0 ? Bound::of(gain / std::sqrt(eps), BoundKind::certified, out) : Bound::without_bound(name, out));
  }

  // norm(x + drop(alpha f)), and the sum itself if it is asked for. Same bound: the residual's, then this norm's.
  Sum after_residual(const Tensor& x, const Tensor& f, const Tensor& alpha, const DropPath& drop, bool keep_sum) const {
    const LayerRange range(name);
    if (kind == NormPart::none) {
      const Tensor s = residual(x, f, alpha, drop);
      return {s, s};
    }
    return residual_norm(x, f, alpha, drop, kind == NormPart::layer ? RowNorm::layer : RowNorm::center, weight(), bias(), eps, keep_sum);
  }
};
