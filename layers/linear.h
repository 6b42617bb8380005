// linear.h: y = x W^T + b, alone or with GELU behind it. A 1x1 convolution is the same layer with a weight [out, in, 1, 1].
#pragma once
#include "layers/lipschitz/spectral_norms.h"
#include "layers/lipschitz/bound.h"
#include "layers/mode.h"
#include "layers/scope.h"

// The largest slope of the erf GELU: Phi(sqrt 2) + sqrt 2 phi(sqrt 2) = 1.12890414..., rounded up.
inline constexpr double gelu_lipschitz = 1.128905;

struct Linear {
  std::string name;
  Parameter weight, bias;   // [out, in], [out]
  int64_t in = 0, out = 0;

  Linear() = default;
  Linear(const Scope& scope, int64_t in, int64_t out, bool with_bias = true) : name(scope.path()), in(in), out(out) {
    weight = scope.parameter("weight", {out, in}, ParameterKind::matrix, scope.rule().matrix());
    if (with_bias) bias = scope.parameter("bias", {out}, ParameterKind::vector, Init::zeros());
  }
  // A 1x1 convolution over channels-last tokens.
  static Linear pointwise(const Scope& scope, int64_t channels) {
    Linear layer;
    layer.name = scope.path();
    layer.in = layer.out = channels;
    layer.weight = scope.parameter("weight", {channels, channels, 1, 1}, ParameterKind::matrix, scope.rule().convolution(channels));
    layer.bias = scope.parameter("bias", {channels}, ParameterKind::vector, InitRule::conv_bias(channels));
    return layer;
  }

  Tensor operator()(const Tensor& x) const {
    const LayerRange range(name);
    return linear(x, weight(), bias());
  }
  // |W x - W y| <= sigma |x - y|; a token of norm R leaves with at most sigma R + |b|.
  Bound bound(const Domain& in_domain, BoundTrace& trace) const {
    const double sigma = trace.norms.sigma(weight);
    const double shift = bias ? l2_norm(bias) : 0;
    return trace.note(name, "Linear", Bound::of(sigma, BoundKind::estimate, {in_domain.tokens, out, sigma * in_domain.radius + shift}));
  }

  Tensor with_gelu(const Tensor& x) const {
    const LayerRange range(name);
    return linear_gelu(x, weight(), bias());
  }
  // |gelu(x)| <= |x|, so the radius does not grow behind it.
  Bound with_gelu_bound(const Domain& in_domain, BoundTrace& trace) const {
    Bound b = bound(in_domain, trace);
    b.lipschitz *= gelu_lipschitz;
    return b;
  }
};
