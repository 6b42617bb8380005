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
    q_proj = Linear(scope / "q_proj", width, width, place.qkv_bias, init.branch_start(false), 1, heads);
    if (!tied) k_proj = Linear(scope / "k_proj", width, width, place.qkv_bias, init.branch_start(false), 1, heads);
    v_proj = Linear(scope / "v_proj", width, width, place.qkv_bias && !tied, init.branch_start(), 1, heads);
  } else {
    qkv = Linear(scope / "qkv", width, 3 * width, place.qkv_bias, init.branch_start(), 1, part.groups == AttentionPart::whole ? 1 : 3 * heads);
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
    const Parameter weight = at.parameter("weight", kernel, ParameterKind::depthwise, init.convolution(9), place.window_height, place.window_width);
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
  const double factor = (q_proj.weight.scalar() * q_proj.weight.scalar()) * v_proj.weight.scalar() / std::sqrt(double(d));
  const Tensor matrix = matmul(matmul(v, q, true), q, false).view({width, width});
  return linear(x, matrix, Tensor(), Tensor::full({1}, factor, DType::f64));
}

Attention::Projected Attention::project(const Tensor& x, const Mode& mode) const {
  Projected p;
  if (fused()) {
    const Tensor all = qkv(x);
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

Tensor Attention::position_of_values(const Tensor& v) const {
  if (lepe.size() == 1) return lepe[0](v, place.window_height, place.window_width);
  const int64_t half = width / 2;
  return concat_channels(lepe[0](slice_channels(v, 0, half), place.window_height, place.window_width),
                         lepe[1](slice_channels(v, half, half), place.window_width, place.window_height));
}

Tensor Attention::Lepe::operator()(const Tensor& v, int height, int width) const {
  const Tensor kernel = weight.alpha_now ? scale(weight.matrix(), weight.scalar()) : weight.matrix();
  return window_depthwise_conv(v, kernel, bias(), height, width);
}

Tensor Attention::operator()(const Tensor& x, const Mode& mode) const {
  Attended attended;
  if (fused() && part.qk_norm == NormKind::none && place.rotary_base == 0 && lepe.empty()) {
    const Tensor projected = qkv(x);
    const LayerRange range(name);
    attended = window_attention(projected, bias_table(), config(mode.temperature));
  } else {
    const Projected p = project(x, mode);
    const LayerRange range(name);
    attended = attention(p.q, p.k, p.v, bias_table(), config(mode.temperature));
    if (!lepe.empty()) attended.out = add(attended.out, position_of_values(p.v));
  }
  if (mode.entropies && !recomputing()) mode.entropies->note(index, first_head, attended.entropy, x);
  return proj(attended.out);
}

namespace {

// Per head, N tokens attending to each other, projections with norms q, k, v. Facts used by all: |diag(p) - p p^T| <= 1/2 in l2 and at most 1
// from l_inf to l_1; |P| <= sqrt N for a row-stochastic P; position biases and masks shift logits by constants.
struct Head {
  double n, d;                  // tokens, width
  double q, k, v;               // norms of the three maps of this head
  double reach_q, reach_k, reach_v;   // longest token of each
  double scale;                 // of the logits
};

// nu softmax(tau q^ k^) v^ with x^ = x / sqrt(|x|^2 + eps): |d x^| <= |dx| / sqrt eps and |Q^|, |K^|, |V^| <= sqrt N, hence
// L <= nu / sqrt(eps) [N tau / 2 (|Wq| + |Wk|) + sqrt(N) |Wv|]                    (reference lipsformer.md 2.6, bound (2))
double cosine_bounded(const Head& h, double tau, double nu, double eps) {
  return nu / std::sqrt(eps) * (h.n * tau / 2 * (h.q + h.k) + std::sqrt(h.n) * h.v);
}
// Token by token: |do_i| <= max |dv^_j| + max_j |dlogit_ij| with |v^| < 1.
double cosine_bounded_token(const Head& h, double tau, double nu, double eps) { return nu / std::sqrt(eps) * (h.v + tau * (h.q + h.k)); }

// softmax(scale q k^T) v on tokens of bounded length: dO = dP V + P dV, |dP| <= 1/2 |dS|, |dS| <= scale (|dQ| |K| + |Q| |dK|) with
// |Q| <= sqrt(N) rq and so on, hence L <= sqrt(N) |Wv| + N / 2 rv scale (|Wq| rk + rq |Wk|).
double dot_on_ball(const Head& h) { return std::sqrt(h.n) * h.v + 0.5 * h.n * h.reach_v * h.scale * (h.q * h.reach_k + h.reach_q * h.k); }
// Token by token: |do_i| <= |Wv| max|dx| + rv scale (rk |Wq| + rq |Wk|) max|dx|    (reference enforced_lipschitz.md 3.3, 3.5 (iii))
double dot_on_ball_token(const Head& h) { return h.v + h.reach_v * h.scale * (h.q * h.reach_k + h.reach_q * h.k); }

// x e^(x+1) = y, solved for x from above: the function is convex, so Newton's steps from above stay there.
double inverse_phi(double y) {
  double x = std::log1p(y);
  for (int i = 0; i < 60; i++) x -= (x * std::exp(x + 1) - y) / ((x + 1) * std::exp(x + 1));
  return x * (1 + 1e-9) + 1e-12;
}

// softmax(-c |z_i - z_j|^2) z W with z = x Wq and W = Wq^T Wv / sqrt d. With w_j = z_j - z_i the row's gradient is
// sum_j P_ij dz_j + 2c Cov(w) dz_i + 2c sum_j P_ij (w_j . dz_j)(w_j - mean w), and c E|w|^2 <= phi^-1(N - 1) whatever c is. Rows of both sums
// have weights of at most 1 and 2 phi^-1, so |dg| <= (sqrt N + 2 phi^-1 + sqrt N 2 phi^-1) |dz|. (Kim et al. 2021 have the same 4 phi^-1 + 1;
// the norm of Wq enters twice, once by z and once by W.)
double l2_form(const Head& h) {
  const double spread = inverse_phi(h.n - 1);
  return (std::sqrt(h.n) * (1 + 2 * spread) + 2 * spread) * h.q * h.q * h.v / std::sqrt(h.d);
}
double l2_form_token(const Head& h) { return (1 + 4 * inverse_phi(h.n - 1)) * h.q * h.q * h.v / std::sqrt(h.d); }
// Rotary positions turn z but not the values, so the w_j above are no longer what is averaged: with W and c as there,
// |dlogit_ij| <= 2c |z_i - z_j| |dz_i - dz_j| on tokens of bounded length. Row by row that is at most 8c rq |Wq| max|dx|; over all
// 4c rq sqrt(2N) |Wq| |dx|, of which half reaches P; values have length |W| R.
double l2_on_ball(const Head& h, double reach_value) {
  return std::sqrt(h.n) * h.q * h.q * h.v / std::sqrt(h.d) + 2 * std::sqrt(2.0) * h.n * h.scale * h.reach_q * h.q * reach_value;
}
double l2_on_ball_token(const Head& h, double reach_value) {
  return h.q * h.q * h.v / std::sqrt(h.d) + 8 * h.scale * h.reach_q * h.q * reach_value;
}

struct Constants {
  double l2, token, reach;   // of one head; reach: its longest token
};

}  // namespace

// sigma_bar: no row of similarities is longer. |q_i . k_j| <= |Wq Wk^T| |x_i| |x_j|, and over a row |K| |x_i| <= |X|_F^2 with biases as a further
// channel of ones; distances are at most four times that; normalised queries and keys have a length of their own.
double Attention::logit_length(const NormSource& norms, double input_square) const {
  const double root_tokens = std::sqrt(double(tokens()));
  if (part.similarity == Similarity::cosine || part.similarity == Similarity::cosine_bounded) return part.tau / part.temperature * root_tokens;
  if (part.qk_norm != NormKind::none) {
    const auto reach = [&](const Norm& n) { return max_abs(n.weight) * std::sqrt(double(head_width())); };
    return logit_scale() * reach(q_norm) * reach(k_norm) * root_tokens;
  }
  const auto with_bias = [&](const Linear& l) { return std::hypot(l.weight.group_norm(norms), l.bias ? l2_norm(l.bias) : 0); };
  const bool tied = part.similarity == Similarity::l2;
  const double q = with_bias(fused() ? qkv : q_proj), k = fused() || tied ? q : with_bias(k_proj);
  const bool biased = bool((fused() ? qkv : q_proj).bias);
  return (tied ? 4 : 1) * logit_scale() * q * k * (input_square + (biased ? double(tokens()) : 0));
}

double Attention::entropy_floor(const NormSource& norms, double input_square, double temperature) const {
  if (place.shift > 0) return 0;   // a mask leaves some tokens next to nobody
  double length = logit_length(norms, input_square);
  if (bias_table) length += std::sqrt(double(tokens())) * max_abs(bias_table) / part.temperature;
  length /= temperature;
  if (!place.causal) return ::entropy_floor(tokens(), length);
  double sum = 0;   // token i sees i + 1
  for (int64_t i = 1; i <= tokens(); i++) sum += ::entropy_floor(i, length);
  return sum / double(tokens());
}

// Heads read the same tokens and write side by side: L^2 = sum_h L_h^2, and the RMS of a token is at most the largest of its heads'. A head's
// projection is part of the whole, so its norm is at most that; where heads are groups of their own, the largest of theirs.
Bound Attention::bound(const Domain& in, BoundTrace& trace) const {
  const bool tied = part.similarity == Similarity::l2;
  const double d = double(head_width()), root_heads = std::sqrt(double(place.heads)), infinity = std::numeric_limits<double>::infinity();
  const auto reach = [&](const Linear& l, double norm) { return norm * in.radius + (l.bias ? l2_norm(l.bias) : 0); };
  const Linear &lq = fused() ? qkv : q_proj, &lk = fused() ? qkv : tied ? q_proj : k_proj, &lv = fused() ? qkv : v_proj;
  for (const Linear* l : {&qkv, &q_proj, &k_proj, &v_proj})
    if (l->weight.raw) l->bound(in, trace);
  const auto norm_of = [&](const Linear& l) { return l.weight.group_norm(trace.norms); };
  Head h{double(tokens()), d, norm_of(lq), norm_of(lk), norm_of(lv), 0, 0, 0, logit_scale() / trace.temperature};
  h.reach_q = reach(lq, h.q), h.reach_k = reach(lk, h.k), h.reach_v = reach(lv, h.v);
  if (part.qk_norm != NormKind::none) {
    const Bound nq = q_norm.bound({in.tokens, head_width(), h.reach_q}, trace), nk = k_norm.bound({in.tokens, head_width(), h.reach_k}, trace);
    h.q *= nq.lipschitz, h.k *= nk.lipschitz;
    h.reach_q = nq.out.radius, h.reach_k = nk.out.radius;
  }
  Constants c{infinity, infinity, h.reach_v};
  const double tau = part.tau / part.temperature / trace.temperature;
  switch (part.similarity) {
    case Similarity::cosine_bounded: c = {cosine_bounded(h, tau, part.nu, part.eps), cosine_bounded_token(h, tau, part.nu, part.eps), part.nu}; break;
    case Similarity::dot:
      if (std::isfinite(h.reach_v) && std::isfinite(h.reach_q * h.reach_k)) c = {dot_on_ball(h), dot_on_ball_token(h), h.reach_v};
      break;
    case Similarity::l2:
      c.reach = h.q * h.q * h.v / std::sqrt(d) * in.radius;
      if (place.rotary_base == 0) c = {l2_form(h), l2_form_token(h), c.reach};
      else if (std::isfinite(c.reach)) c = {l2_on_ball(h, c.reach), l2_on_ball_token(h, c.reach), c.reach};
      break;
    // Values are not normalised and the clamp of q and k at 1e-12 lets the similarity turn over within 1e-12: no useful constant exists
    // (reference lipsformer.md 2.7).
    case Similarity::cosine: break;
  }
  // LePE: each channel's kernel has norm at most 3 |w_c|, over a token's channels as over all.
  for (const Lepe& l : lepe) {
    const double longest = 3 * l.weight.longest_row();
    // The convolution reads all heads of its half, so it is counted as if each head could get the whole of it.
    c.l2 += longest * lv.weight.norm(trace.norms);
    c.token += longest * lv.weight.norm(trace.norms);
    c.reach += longest * reach(lv, lv.weight.norm(trace.norms)) + l2_norm(l.bias);
  }
  const Domain out{in.tokens, width, root_heads * c.reach};
  Bound inside = std::isfinite(c.l2) ? Bound::of(root_heads * c.l2, BoundKind::estimate, out) : Bound::without_bound(name, out);
  // From the RMS of tokens to the RMS of a head's slice of them.
  inside.rms = c.token * std::sqrt(double(width) / d);
  return trace.note(name, "Attention", then(inside, proj.bound(out, trace)));
}
