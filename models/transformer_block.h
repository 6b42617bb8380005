// transformer_block.h: attention and MLP, each a residual branch with a norm before or after; and LipsFormer's convolution branches in front.
#pragma once
#include "layers/depthwise_conv.h"
#include "layers/mlp.h"
#include "models/parts.h"

struct TransformerBlock {
  std::string name;
  NormPosition position = NormPosition::pre;
  Norm norm1, norm2;
  Attention attn;
  ResidualBranch branch1, branch2;
  Mlp mlp;

  TransformerBlock() = default;
  // `attention` is the path of the attention's layers. first_norm = false leaves the attention branch without a norm (LipsFormer-CSwin).
  TransformerBlock(const Scope& scope, const Scope& attention, const Parts& parts, NormPosition position, const AttentionPlace& place, int64_t width,
                   int64_t hidden, double start, double drop_rate, bool first_norm = true)
      : name(scope.path()), position(position) {
    if (first_norm) norm1 = Norm(scope / "norm1", width, parts.norm);
    attn = Attention(attention, width, parts.attention, place);
    branch1 = ResidualBranch(scope / "alpha1", width, parts.residual, start, drop_rate);
    norm2 = Norm(scope / "norm2", width, parts.norm);
    mlp = Mlp(scope / "mlp", width, hidden, parts.activation);
    branch2 = ResidualBranch(scope / "alpha2", width, parts.residual, start, drop_rate);
  }

  // [B, H, W, C] -> [B, H, W, C]
  Tensor operator()(const Tensor& input, const Mode& mode) const {
    Tensor x = input;
    if (position == NormPosition::post) {
      x = branch1.with_norm(norm1, x, attn(x, mode), false, mode).normalised;
      return branch2.with_norm(norm2, x, mlp(x), false, mode).normalised;
    }
    const Sum s = branch1.with_norm(norm2, x, attn(norm1(x, mode), mode), true, mode);
    return branch2(s.sum, mlp(s.normalised), mode);
  }

  void add_norm_folds(std::vector<NormFold>& all) const {
    if (position == NormPosition::post)
      fail(Exit::config, name, " has its norms behind the residual sums, where the next sum reads them too: they cannot be folded away");
    all.push_back({&norm1, attn.readers()});
    all.push_back({&norm2, {&mlp.fc1.weight}});
  }

  Bound bound(const Domain& in, BoundTrace& trace) const {
    if (position == NormPosition::post) {
      Bound b = branch1.bound(in, attn.bound(in, trace), trace);
      b = then(b, norm1.bound(b.out, trace));
      b = then(b, branch2.bound(b.out, mlp.bound(b.out, trace), trace));
      return then(b, norm2.bound(b.out, trace));
    }
    const Bound n1 = norm1.bound(in, trace);
    const Bound b = branch1.bound(in, then(n1, attn.bound(n1.out, trace)), trace);
    const Bound n2 = norm2.bound(b.out, trace);
    return then(b, branch2.bound(b.out, then(n2, mlp.bound(n2.out, trace)), trace));
  }
};

// x + a1 gelu(1x1(gelu(dw7(x)))), then x + a2 gelu(dw7(x))     (LipsFormer, released code)
struct ConvBranches {
  DepthwiseConv conv1, conv2;
  Linear nin;
  ResidualBranch branch1, branch2;

  ConvBranches() = default;
  ConvBranches(const Scope& scope, const Parts& parts, int64_t width, int64_t side, double start, double drop_rate) {
    conv1 = DepthwiseConv(scope / "dwconv_layers" / 0, width, 7, side, side);
    conv2 = DepthwiseConv(scope / "dwconv_layers" / 1, width, 7, side, side);
    nin = Linear::pointwise(scope / "nin", width);
    branch1 = ResidualBranch(scope / "scale_layers" / 0, width, parts.residual, start, drop_rate);
    branch2 = ResidualBranch(scope / "scale_layers" / 1, width, parts.residual, start, drop_rate);
  }
  Tensor operator()(const Tensor& input, const Mode& mode) const {
    const Tensor x = branch1.with_gelu_of(nin, input, conv1.with_gelu(input), mode);
    return branch2.with_gelu_of(conv2, x, mode);
  }
  Bound bound(const Domain& in, BoundTrace& trace) const {
    const Bound conv = conv1.with_gelu_bound(in, trace);
    const Bound b = branch1.bound(in, then(conv, nin.with_gelu_bound(conv.out, trace)), trace);
    return then(b, branch2.bound(b.out, conv2.with_gelu_bound(b.out, trace), trace));
  }
};
