// depthwise_conv.h: a K x K convolution of each channel by itself, zero padding, stride 1, with GELU behind it.
#pragma once
#include "layers/linear.h"

struct DepthwiseConv {
  std::string name;
  Parameter weight, bias;   // [C, 1, K, K], [C]

  DepthwiseConv() = default;
  DepthwiseConv(const Scope& scope, int64_t channels, int64_t kernel, int64_t height, int64_t width) : name(scope.path()) {
    const int64_t area = kernel * kernel;
    weight = scope.parameter("weight", {channels, 1, kernel, kernel}, ParameterKind::depthwise, scope.rule().convolution(area), height, width);
    bias = scope.parameter("bias", {channels}, ParameterKind::vector, InitRule::conv_bias(area));
  }

  // [B, H, W, C] -> [B, H, W, C]
  Tensor with_gelu(const Tensor& x) const {
    const LayerRange range(name);
    return depthwise_conv_gelu(x, weight(), bias());
  }
  // The operator's norm on the padded map bounds the whole map. A single token of the result sees at most K x K tokens:
  // y_tc^2 <= |w_c|^2 sum_i x_ic^2, and summed over c: |y_t| <= max_c |w_c| K R + |b|.
  Bound with_gelu_bound(const Domain& in, BoundTrace& trace) const {
    const Tensor w = weight.raw();
    const std::vector<double> values = w.values();
    const int64_t area = w.dim(2) * w.dim(3);
    double largest = 0;
    for (int64_t c = 0; c < w.dim(0); c++) {
      double squares = 0;
      for (int64_t i = 0; i < area; i++) squares += values[c * area + i] * values[c * area + i];
      largest = std::max(largest, std::sqrt(squares));
    }
    const double sigma = trace.norms.sigma(weight);
    const Domain out{in.tokens, in.width, largest * double(w.dim(2)) * in.radius + l2_norm(bias)};
    return trace.note(name, "DepthwiseConv", Bound::of(sigma * gelu_lipschitz, BoundKind::estimate, out));
  }
};
