// linear.h: y = x W^T + b, alone or with an activation behind it. A 1x1 convolution is the same layer with a weight [out, in, 1, 1].
#pragma once
#include "layers/lipschitz/bound.h"
#include "layers/mode.h"
#include "layers/weight.h"

// The largest slope of the erf GELU: Phi(sqrt 2) + sqrt 2 phi(sqrt 2) = 1.12890414..., rounded up.
inline constexpr double gelu_lipschitz = 1.128905;

// What gelu_scaled divides by: the paper's 1.1289 would leave a slope just above 1.
inline constexpr double gelu_divisor = 1.1290;

enum class Activation {
  gelu,
  gelu_scaled,   // gelu / 1.1290, slope at most 1; the division is left to the next product
  relu,
};

struct Linear {
  std::string name;
  Weight weight;     // [out, in]
  Parameter bias;    // [out]
  int64_t in = 0, out = 0;

  Linear() = default;
  Linear(const Scope& scope, int64_t in, int64_t out, bool with_bias = true) : Linear(scope, in, out, with_bias, scope.init().matrix()) {}
  Linear(const Scope& scope, int64_t in, int64_t out, bool with_bias, const Init& init, double factor = 1, const RowParts& rows = {})
      : name(scope.path()), weight(scope, {out, in}, init, factor, rows), in(in), out(out) {
    if (with_bias && scope.rules().bias) bias = scope.parameter("bias", {out}, ParameterKind::vector, Init::zeros());
  }
  // A 1x1 convolution over channels-last tokens.
  static Linear pointwise(const Scope& scope, int64_t channels) {
    Linear layer;
    layer.name = scope.path();
    layer.in = layer.out = channels;
    layer.weight = Weight(scope, {channels, channels, 1, 1}, scope.init().convolution(channels));
    if (scope.rules().bias) layer.bias = scope.parameter("bias", {channels}, ParameterKind::vector, InitRule::conv_bias(channels));
    return layer;
  }

  LinearMap map() const { return {weight.matrix(), bias(), weight.alpha()}; }
  Tensor operator()(const Tensor& x) const {
    const LayerRange range(name);
    return linear(x, weight.matrix(), bias(), weight.alpha());
  }
  // |W x - W y| <= sigma |x - y|, token by token; a token of norm R leaves with at most sigma R + |b|.
  Bound bound(const Domain& in_domain, BoundTrace& trace) const {
    const Real sigma = weight.norm(trace.norms), shift = bias ? l2_norm(bias) : 0;
    const Domain result{in_domain.tokens, out, reach(sigma, in_domain.radius) + shift};
    return trace.note(name, "Linear", Bound::tokenwise(sigma, weight.norm_kind(trace.norms), in, result));
  }

  Tensor with_gelu(const Tensor& x) const {
    const LayerRange range(name);
    return linear_gelu(x, weight.matrix(), bias(), weight.alpha());
  }
  // |gelu(x)| <= |x|, so the radius does not grow behind it.
  Bound with_gelu_bound(const Domain& in_domain, BoundTrace& trace) const { return stretched(bound(in_domain, trace), gelu_lipschitz, "GELU"); }

  Tensor with(Activation activation, const Tensor& x) const { return activation == Activation::relu ? relu((*this)(x)) : with_gelu(x); }
  Bound with_bound(Activation activation, const Domain& in_domain, BoundTrace& trace) const {
    return activation == Activation::relu ? bound(in_domain, trace) : with_gelu_bound(in_domain, trace);
  }
};
