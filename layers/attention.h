// attention.h: multi-head attention, the part `attention`, between linear layers: in windows of a map, in stripes, or over a whole sequence
// (a map of height 1 with a window of its length). Its bound is beside it in attention.cpp.
#pragma once
#include "layers/lipschitz/attention_bounds.h"
#include "layers/norm.h"

// What a recipe chooses.
struct AttentionPart {
  Similarity similarity = Similarity::dot;
  double tau = 10, nu = 1, eps = 1e-6;   // of the cosine forms
  bool by_width = false;                 // dot_mup: logits are scale q k / d instead of q k / sqrt d, and a third of what comes out
  double scale = 1;
  double temperature = 1;                // the logits are divided by it
  NormKind qk_norm = NormKind::none;     // over each head of q and k: none, layer, rms
  double qk_norm_eps = 1e-6;
  bool separate = false;                 // q, k and v by matrices of their own instead of one
  enum Groups { whole, matrices, heads } groups = whole;   // what Muon and constraints take for a matrix of q, k and v
};

// What the backbone fixes.
struct AttentionPlace {
  int heads = 1;
  int window_height = 7, window_width = 7, shift = 0;
  bool qkv_bias = true;
  bool position_bias = false;   // a learned one for each pair of relative positions (Swin)
  bool causal = false;
  bool cross_shaped = false;    // half of the heads in stripes the other way (CSwin)
  bool lepe = false;            // a depthwise 3x3 convolution of the values inside the windows, added to what attention gives (CSwin)
  double output_factor = 1;     // before the projection: 1 / sqrt(heads a branch) in LipsFormer-CSwin
  double rotary_base = 0;       // 0: no rotary positions
  int rotary_still = 0;
  int64_t window_tokens() const { return int64_t(window_height) * window_width; }
};

struct Attention {
  std::string name;
  Linear qkv;                      // [3C, C], rows q, k, v
  Linear q_proj, k_proj, v_proj;   // or three of [C, C]; the l2 form has no k_proj: keys are queries
  Linear proj;
  Norm q_norm, k_norm;             // over a head's channels
  Parameter bias_table;            // [(2wh-1)(2ww-1), heads]
  struct LepeWeights {
    Weight weight;                 // [C', 1, 3, 3]: of one half of the channels, or of all
    Parameter bias;                // [C']
  };
  std::vector<LepeWeights> lepe;
  AttentionPart part;
  AttentionPlace place;
  int64_t width = 0;
  int first_head = 0, index = 0;   // of this layer among all heads and all attentions of the model

  Attention() = default;
  Attention(const Scope& scope, int64_t width, const AttentionPart& part, const AttentionPlace& place);

  // [B, H, W, C] -> [B, H, W, C]
  Tensor operator()(const Tensor& x, const Mode& mode) const;
  Bound bound(const Domain& in, BoundTrace& trace) const;

  // The linear maps that read the input: what a norm in front is folded into.
  std::vector<const Weight*> readers() const;

  // cosine_bounded: the constant of this layer as LipsFormer's theorem 1 has it, refined by the softmax's own constant, and ours; l2, on any input.
  struct CosineConstants {
    Real theorem, refined, ours;
  };
  CosineConstants cosine_constants(const NormSource& norms) const;

  int64_t tokens() const { return place.window_tokens(); }
  int64_t head_width() const { return width / place.heads; }
  // The least mean entropy that each head can have on such inputs (Zhai et al. 2023, theorem 3.1; Newhouse et al. 2025).
  std::vector<double> entropy_floors(const NormSource& norms, const InputSquares& input, double temperature) const;

 private:
  struct Projected {
    Tensor q, k, v;
  };
  struct HeadNorms {   // of the maps of one head, and of their biases
    double q, k, v, q_bias, k_bias, v_bias;
  };
  struct LogitReach {
    double length, largest;
  };
  bool fused() const { return bool(qkv.weight.raw); }
  std::vector<HeadNorms> head_norms(const NormSource& norms) const;
  LogitReach logit_reach(const HeadNorms& h, const InputSquares& input) const;
  HeadBound head_bound(const AttentionHead& head, double temperature) const;
  WindowAttention config(double temperature) const;
  double logit_scale() const { return (part.by_width ? part.scale / double(head_width()) : 1 / std::sqrt(double(head_width()))) / part.temperature; }
  Projected project(const Tensor& x, const Mode& mode) const;
  Tensor l2_values(const Tensor& x) const;
  std::vector<Lepe> lepe_now() const;
};
