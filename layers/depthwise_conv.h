// depthwise_conv.h: a K x K convolution of each channel by itself, zero padding, stride 1, with GELU behind it.
#pragma once
#include "layers/linear.h"

struct DepthwiseConv {
  std::string name;
  Weight weight;    // [C, 1, K, K]
  Parameter bias;   // [C]

  DepthwiseConv() = default;
  DepthwiseConv(const Scope& scope, int64_t channels, int64_t kernel, int64_t height, int64_t width) : name(scope.path()) {
    const int64_t area = kernel * kernel;
    const Shape shape{channels, 1, kernel, kernel};
    weight = Weight(scope, scope.parameter("weight", shape, ParameterKind::depthwise, scope.init().convolution(area), height, width), shape);
    if (scope.rules().bias) bias = scope.parameter("bias", {channels}, ParameterKind::vector, InitRule::conv_bias(area));
  }

  // [B, H, W, C] -> [B, H, W, C]
  Tensor with_gelu(const Tensor& x) const {
    const LayerRange range(name);
    return depthwise_conv_gelu(x, weight.kernel(), bias());
  }
  // The operator's norm on the padded map bounds the whole map. A single token of the result sees at most K x K tokens:
  // y_tc^2 <= |w_c|^2 sum_i x_ic^2, and summed over c: |y_t| <= max_c |w_c| K R + |b|; the same holds for differences, so the rms constant
  // is K max_c |w_c|.
  Bound with_gelu_bound(const Domain& in, BoundTrace& trace) const {
    const Real across = Real(weight.raw.info().shape[2]) * weight.longest_row();
    const Bound conv = Bound::of(weight.convolution_norm(trace.norms), weight.norm_kind(trace.norms),
                                 {in.tokens, in.width, reach(across, in.radius) + (bias ? l2_norm(bias) : 0)}, across);
    return trace.note(name, "DepthwiseConv", stretched(conv, gelu_lipschitz, "GELU"));
  }
};
