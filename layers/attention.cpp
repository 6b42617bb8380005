// attention.cpp: the map of attention and, under it, its Lipschitz bound.
#include "layers/attention.h"

#include "layers/lipschitz/entropy_floor.h"

Attention::Attention(const Scope& scope, int64_t width, const AttentionPart& part, const AttentionPlace& place)
    : name(scope.path()), part(part), place(place), width(width) {
  const bool tied = part.similarity == Similarity::l2;
  const int64_t heads = part.groups == AttentionPart::heads ? place.heads : 1;
  const InitRule& init = scope.init();
  if (part.separate || tied) {
    // DeepNorm scales values, not queries and keys.
    const RowParts rows{heads, place.heads};
    q_proj = Linear(scope / "q_proj", width, width, place.qkv_bias, init.branch_start(false), 1, rows);
    if (!tied) k_proj = Linear(scope / "k_proj", width, width, place.qkv_bias, init.branch_start(false), 1, rows);
    v_proj = Linear(scope / "v_proj", width, width, place.qkv_bias && !tied, init.branch_start(), 1, rows);
  } else {
    const RowParts rows{part.groups == AttentionPart::whole ? 1 : 3 * heads, 3 * place.heads};
    qkv = Linear(scope / "qkv", width, 3 * width, place.qkv_bias, init.branch_start(), 1, rows);
  }
  const NormPart head_norm{part.qk_norm, part.qk_norm_eps};
  if (part.qk_norm != NormKind::none) {
    q_norm = Norm(scope.without_bias() / "q_norm", head_width(), head_norm);
    k_norm = Norm(scope.without_bias() / "k_norm", head_width(), head_norm);
  }
  proj = Linear(scope / "proj", width, width, true, init.branch_end(), place.output_factor * (part.by_width ? 1.0 / 3 : 1));
  if (place.position_bias)
    bias_table = scope.parameter("relative_position_bias_table", {(2 * place.window_height - 1) * (2 * place.window_width - 1), place.heads},
                                 ParameterKind::table, {Init::normal, 0.02});
  const int parts = place.lepe ? (place.cross_shaped ? 2 : 1) : 0;
  for (int i = 0; i < parts; i++) {
    const Scope at = scope / "attns" / i / "get_v";
    const Shape kernel{width / parts, 1, 3, 3};
    // The second half of the channels lies in stripes the other way: a kernel's norm is another on that map.
    const int height = i == 0 ? place.window_height : place.window_width, columns = i == 0 ? place.window_width : place.window_height;
    const Parameter weight = at.parameter("weight", kernel, ParameterKind::depthwise, init.convolution(9), height, columns);
    lepe.push_back({Weight(at, weight, kernel), at.parameter("bias", {width / parts}, ParameterKind::vector, InitRule::conv_bias(9))});
  }
}

WindowAttention Attention::config(double temperature) const {
  WindowAttention c{.heads = place.heads, .window_height = place.window_height, .window_width = place.window_width, .shift = place.shift,
                    .similarity = part.similarity, .tau = part.tau, .nu = part.nu, .eps = part.eps};
  if (part.by_width) c.scale = part.scale / double(head_width());
  c.temperature = part.temperature * temperature;
  c.causal = place.causal;
  c.cross_shaped = place.cross_shaped;
  return c;
}

// Kim et al. 2021: values are x A_h W_V^h with A_h = W_Q^h W_Q^h^T / sqrt d, for each head; here as one matrix [C, C] on x.
Tensor Attention::l2_values(const Tensor& x) const {
  const int64_t h = place.heads, d = head_width();
  const Tensor q = q_proj.weight.matrix().view({h, d, width}), v = v_proj.weight.matrix().view({h, d, width});   // each head's rows
  const Tensor matrix = scale(matmul(matmul(v, q, true), q, false).view({width, width}), 1 / std::sqrt(double(d)));
  Tensor alpha;   // of the three weights together; empty: 1
  for (const Weight* weight : {&q_proj.weight, &q_proj.weight, &v_proj.weight})
    if (const Tensor one = weight->alpha()) alpha = alpha ? multiply(alpha, one) : one;
  return linear(x, matrix, Tensor(), alpha);
}

Attention::Projected Attention::project(const Tensor& x, const Mode& mode) const {
  Projected p;
  if (fused()) {
    const Tensor all = qkv(x);
    const LayerRange range(name);
    p = {slice_channels(all, 0, width), slice_channels(all, width, width), slice_channels(all, 2 * width, width)};
  } else {
    p.q = q_proj(x);
    p.k = part.similarity == Similarity::l2 ? p.q : k_proj(x);
    p.v = part.similarity == Similarity::l2 ? l2_values(x) : v_proj(x);
  }
  const Shape whole = p.q.shape(), by_head{x.rows(), place.heads, head_width()};
  if (part.qk_norm != NormKind::none) {
    p.q = q_norm(p.q.view(by_head), mode).view(whole);
    p.k = k_norm(p.k.view(by_head), mode).view(whole);
  }
  if (place.rotary_base > 0) {
    const Shape sequence{x.dim(0), x.dim(1) * x.dim(2), width};
    p.q = rotary(p.q.view(sequence), place.heads, place.rotary_base, place.rotary_still).view(whole);
    p.k = rotary(p.k.view(sequence), place.heads, place.rotary_base, place.rotary_still).view(whole);
  }
  return p;
}

std::vector<const Weight*> Attention::readers() const {
  if (part.similarity == Similarity::l2)
    fail(Exit::config, name, " makes its values of the query matrix too (parts.attention \"l2\"), so the norm in front cannot be folded into it");
  if (fused()) return {&qkv.weight};
  return {&q_proj.weight, &k_proj.weight, &v_proj.weight};
}

std::vector<Lepe> Attention::lepe_now() const {
  std::vector<Lepe> all;
  for (const LepeWeights& l : lepe) all.push_back({l.weight.kernel(), l.bias()});
  return all;
}

Tensor Attention::operator()(const Tensor& x, const Mode& mode) const {
  Attended attended;
  if (fused() && part.qk_norm == NormKind::none && place.rotary_base == 0) {
    const Tensor projected = qkv(x);
    const LayerRange range(name);
    attended = window_attention(projected, bias_table(), config(mode.temperature), lepe_now());
  } else {
    const Projected p = project(x, mode);
    const LayerRange range(name);
    attended = attention(p.q, p.k, p.v, bias_table(), config(mode.temperature), lepe_now());
  }
  if (mode.entropies && !recomputing()) mode.entropies->note(index, first_head, attended.entropy, x);
  return proj(attended.out);
}

namespace {

// The l2 norms of a layer's bias over each of so many equal blocks of rows.
std::vector<double> bias_lengths(const Linear& l, size_t blocks) {
  std::vector<double> lengths(blocks, 0.0);
  if (!l.bias) return lengths;
  const std::vector<double> values = l.bias.raw().values();
  const size_t rows = values.size() / blocks;
  for (size_t i = 0; i < values.size(); i++) lengths[i / rows] += values[i] * values[i];
  for (double& length : lengths) length = std::sqrt(length) * (1 + 1e-12);
  return lengths;
}

}  // namespace

std::vector<Attention::HeadNorms> Attention::head_norms(const NormSource& norms) const {
  const size_t heads = size_t(place.heads);
  const auto blocks = [&](const Linear& l) { return std::pair{l.weight.block_norms(norms), bias_lengths(l, size_t(l.weight.raw.info().row_blocks))}; };
  std::vector<HeadNorms> all;
  if (fused()) {
    const auto [w, b] = blocks(qkv);
    for (size_t h = 0; h < heads; h++) all.push_back({w[h], w[heads + h], w[2 * heads + h], b[h], b[heads + h], b[2 * heads + h]});
    return all;
  }
  const auto [q, q_bias] = blocks(q_proj);
  const auto [k, k_bias] = blocks(part.similarity == Similarity::l2 ? q_proj : k_proj);
  const auto [v, v_bias] = blocks(v_proj);
  for (size_t h = 0; h < heads; h++) all.push_back({q[h], k[h], v[h], q_bias[h], k_bias[h], v_bias[h]});
  return all;
}

// No row of logits is longer than `length` and no logit larger than `largest`. |q_i . k_j| <= |Wq x_i| |Wk x_j| with biases as a further channel of
// ones, and over a row |K| <= |Wk| |X|_F or |Wk| sqrt(T) max|x|; distances are at most four times that; normalised queries and keys have a
// length of their own.
Attention::LogitReach Attention::logit_reach(const HeadNorms& h, const InputSquares& input) const {
  const double root_tokens = std::sqrt(double(tokens()));
  const auto alike = [&](double largest) { return LogitReach{largest * root_tokens, largest}; };
  if (part.similarity == Similarity::cosine || part.similarity == Similarity::cosine_bounded) return alike(part.tau / part.temperature);
  if (part.qk_norm != NormKind::none) {
    const auto reach = [&](const Norm& n) { return max_abs(n.weight) * std::sqrt(double(head_width())); };
    return alike(logit_scale() * reach(q_norm) * reach(k_norm));
  }
  const double ones = h.q_bias > 0 || h.k_bias > 0 ? 1 : 0, token = input.token + ones, sample = input.sample + ones * double(tokens());
  const double product = (part.similarity == Similarity::l2 ? 4 : 1) * logit_scale() * std::hypot(h.q, h.q_bias) * std::hypot(h.k, h.k_bias);
  return {product * std::sqrt(token * std::min(sample, double(tokens()) * token)), product * token};
}

std::vector<double> Attention::entropy_floors(const NormSource& norms, const InputSquares& input, double temperature) const {
  std::vector<double> floors(size_t(place.heads), 0.0);
  if (place.shift > 0) return floors;   // a mask leaves some tokens next to nobody
  const double bias = bias_table ? max_abs(bias_table) / part.temperature : 0;
  const std::vector<HeadNorms> all = head_norms(norms);
  for (size_t head = 0; head < all.size(); head++) {
    LogitReach reach = logit_reach(all[head], input);
    reach.length = (reach.length + std::sqrt(double(tokens())) * bias) / temperature;
    reach.largest = (reach.largest + bias) / temperature;
    const auto floor = [&](int64_t n) { return std::max(entropy_floor(n, reach.length), std::log(double(n)) - 2 * reach.largest); };
    double sum = 0;
    for (int64_t i = place.causal ? 1 : tokens(); i <= tokens(); i++) sum += floor(i);   // causal: token i sees i + 1
    floors[head] = std::max(0.0, place.causal ? sum / double(tokens()) : sum);
  }
  return floors;
}

// Heads read the same tokens and write side by side: L^2 = sum_h L_h^2, for all tokens and for one.
Bound Attention::bound(const Domain& in, BoundTrace& trace) const {
  for (const Linear* l : {&qkv, &q_proj, &k_proj, &v_proj})
    if (l->weight.raw) l->bound(in, trace);
  const Linear& lv = fused() ? qkv : v_proj;
  Real reach_q = 0, reach_k = 0;
  std::vector<AttentionHead> heads;
  for (const HeadNorms& h : head_norms(trace.norms)) {
    const Real v = part.similarity == Similarity::l2 ? h.q * h.q * h.v / std::sqrt(Real(head_width())) : h.v;   // see l2_values
    heads.push_back({Real(tokens()), h.q, h.k, v, reach(h.q, in.radius) + h.q_bias, reach(h.k, in.radius) + h.k_bias,
                     reach(v, in.radius) + h.v_bias, logit_scale() / trace.temperature});
    reach_q = std::max(reach_q, heads.back().reach_q), reach_k = std::max(reach_k, heads.back().reach_k);
  }
  if (part.qk_norm != NormKind::none) {
    const Bound nq = q_norm.bound({in.tokens, head_width(), reach_q}, trace), nk = k_norm.bound({in.tokens, head_width(), reach_k}, trace);
    for (AttentionHead& h : heads) {
      h.q *= nq.lipschitz, h.k *= nk.lipschitz;
      h.reach_q = nq.out.radius, h.reach_k = nk.out.radius;
    }
  }
  HeadBound all{0, 0, 0};
  for (const AttentionHead& h : heads) all = beside(all, head_bound(h, trace.temperature));
  if (!lepe.empty()) {
    // Values pass a convolution and are added: both maps read the whole input.
    Real across = 0, token = 0, shift = 0;
    for (const LepeWeights& l : lepe) {
      across = std::max(across, Real(l.weight.convolution_norm(trace.norms)));
      token = std::max(token, Real(3 * l.weight.longest_row()));   // 3 x 3 tokens and no more are seen by one
      shift += l2_norm(l.bias);
    }
    Real v = lv.weight.norm(trace.norms), v_bias = lv.bias ? l2_norm(lv.bias) : 0;
    if (part.similarity == Similarity::l2) {   // its values are not what v_proj makes of x
      v = 0;
      for (const AttentionHead& h : heads) v = std::hypot(v, h.v);
    }
    all.l2 += across * v;
    all.token += token * v;
    all.reach += reach(token, reach(v, in.radius) + v_bias) + shift;
  }
  const Domain out{in.tokens, width, all.reach};
  const Bound inside = std::isfinite(all.l2) ? Bound::of(all.l2, trace.norms.kind(), out, all.token) : Bound::without_bound(name, out);
  return trace.note(name, "Attention", then(inside, proj.bound(out, trace)));
}

Attention::CosineConstants Attention::cosine_constants(const NormSource& norms) const {
  check(part.similarity == Similarity::cosine_bounded, "[attention] ", name, " has no cosine constants: its similarity is another");
  CosineConstants all{0, 0, 0};
  const Real tau = part.tau / part.temperature;
  for (const HeadNorms& n : head_norms(norms)) {
    const AttentionHead h{Real(tokens()), n.q, n.k, n.v, 0, 0, 0, 1};
    all.theorem = std::hypot(all.theorem, cosine_theorem(h, tau, part.nu, part.eps));
    all.refined = std::hypot(all.refined, cosine_theorem_refined(h, tau, part.nu, part.eps));
    all.ours = std::hypot(all.ours, cosine_bounded_head(h, tau, part.nu, part.eps).l2);
  }
  const Real out = proj.weight.norm(norms);
  return {all.theorem * out, all.refined * out, all.ours * out};
}

HeadBound Attention::head_bound(const AttentionHead& h, double temperature) const {
  constexpr Real infinity = std::numeric_limits<Real>::infinity();
  switch (part.similarity) {
    case Similarity::cosine_bounded: return cosine_bounded_head(h, part.tau / part.temperature / temperature, part.nu, part.eps);
    case Similarity::dot: return dot_head(h);
    case Similarity::l2:
      if (place.rotary_base > 0 || part.qk_norm != NormKind::none) return l2_head_on_ball(h, part.qk_norm == NormKind::none);
      return l2_head(h, bias_table ? max_abs(bias_table) / part.temperature / temperature : 0);
    // Values are not normalised and the clamp of q and k at 1e-12 lets the similarity turn over within 1e-12: no useful constant exists.
    case Similarity::cosine: break;
  }
  return {infinity, infinity, h.reach_v};
}
