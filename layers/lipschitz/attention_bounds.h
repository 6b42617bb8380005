// attention_bounds.h: Lipschitz constants of one head of attention, in every form, as formulas.
//
// N tokens attend to each other, by projections with spectral norms q, k and v. Facts used by all: |diag(p) - p p^T| <= 1/2 in l2 and at most 1
// from l_inf to l_1; |P| <= sqrt N for a row-stochastic P; position biases and masks shift logits by constants.
#pragma once
#include <cmath>

#include "layers/lipschitz/bound.h"

struct AttentionHead {
  Real n;                             // tokens
  Real q, k, v;                       // norms of the three maps of this head
  Real reach_q, reach_k, reach_v;     // longest token of each
  Real scale;                         // of the logits
};

struct HeadBound {
  Real l2, token, reach;   // over all tokens; for the token that moves most; the longest token that comes out
};

// Two heads that read the same tokens and write side by side.
inline HeadBound beside(const HeadBound& a, const HeadBound& b) { return {std::hypot(a.l2, b.l2), std::hypot(a.token, b.token), std::hypot(a.reach, b.reach)}; }

// nu softmax(tau q^ k^) v^ with x^ = x / sqrt(|x|^2 + eps): |d x^| <= |dx| / sqrt eps and |Q^|, |K^|, |V^| <= sqrt N, hence
// L <= nu / sqrt(eps) [N tau / 2 (|Wq| + |Wk|) + sqrt(N) |Wv|]                    (after Qi et al. 2023, cosine attention)
// Token by token: |do_i| <= max |dv^_j| + max_j |dlogit_ij| with |v^| < 1.
inline HeadBound cosine_bounded_head(const AttentionHead& h, Real tau, Real nu, Real eps) {
  const Real slope = nu / std::sqrt(eps);
  return {slope * (h.n * tau / 2 * (h.q + h.k) + std::sqrt(h.n) * h.v), slope * (h.v + tau * (h.q + h.k)), nu};
}
// The same constant over all tokens as LipsFormer's theorem 1 has it (Qi et al. 2023), for comparison: never below the one above.
inline Real cosine_theorem(const AttentionHead& h, Real tau, Real nu, Real eps) {
  return nu / std::sqrt(eps) * (2 * h.n * (h.n - 1) * tau * h.k + 2 * (h.n - 1) * tau * h.q + 2 * h.n * h.v);
}
// And with the softmax's Jacobian bounded by 1/2 (arXiv 2510.23012).
inline Real cosine_theorem_refined(const AttentionHead& h, Real tau, Real nu, Real eps) {
  return nu / std::sqrt(eps) * (h.n * h.n * tau * h.k + h.n * tau * h.q + 2 * h.n * h.v);
}

// softmax(scale q k^T) v on tokens of bounded length: dO = dP V + P dV, |dP| <= 1/2 |dS|, |dS| <= scale (|dQ| |K| + |Q| |dK|) with
// |Q| <= sqrt(N) rq and so on, hence L <= sqrt(N) |Wv| + N / 2 rv scale (|Wq| rk + rq |Wk|).
// Token by token: |do_i| <= |Wv| max|dx| + rv scale (rk |Wq| + rq |Wk|) max|dx|    (after Newhouse et al. 2025, dot product)
inline HeadBound dot_head(const AttentionHead& h) {
  const Real logits = h.scale * (h.q * h.reach_k + h.reach_q * h.k) * h.reach_v;
  if (!std::isfinite(logits)) return {INFINITY, INFINITY, h.reach_v};
  return {std::sqrt(h.n) * h.v + h.n / 2 * logits, h.v + logits, h.reach_v};
}

// x e^(x+1) = y, solved for x from above: the function is convex, so Newton's steps from above stay there.
inline Real inverse_phi(Real y) {
  if (!std::isfinite(y)) return INFINITY;
  Real x = std::log1p(y);
  for (int i = 0; i < 60; i++) x -= (x * std::exp(x + 1) - y) / ((x + 1) * std::exp(x + 1));
  return x * (1 + 1e-9L) + 1e-12L;
}

// softmax(-c |z_i - z_j|^2 + b_ij) V with z = x Wq and V = z W, W = Wq^T Wv / sqrt d, |V| <= v |x|. With w_j = z_j - z_i the row's gradient is
// (sum_j P_ij dz_j + 2c Cov(w) dz_i + 2c sum_j P_ij (w_j . dz_j)(w_j - mean w)) W, and c E|w|^2 <= s := phi^-1((N - 1) e^(2 max|b|)) whatever c is:
// with a_j = c |w_j|^2 and r_j = e^(b_ij - b_ii - a_j), E a <= s follows from sum_j r_j (a_j - s) <= s, and r_j (a_j - s) <= e^(2 max|b|) e^-(s+1).
// (A token sees itself, masked or not.) Rows of both sums have weights of at most 1 and 2s, so |dg| <= (sqrt N + 2s + sqrt N 2s) |dz|.
// (Kim et al. 2021 have the same 4 phi^-1 + 1 without biases; the norm of Wq enters twice, once by z and once by W: v = |Wq|^2 |Wv| / sqrt d.)
inline HeadBound l2_head(const AttentionHead& h, Real largest_bias) {
  const Real spread = inverse_phi((h.n - 1) * std::exp(2 * largest_bias)), root = std::sqrt(h.n);
  return {(root * (1 + 2 * spread) + 2 * spread) * h.v, (1 + 4 * spread) * h.v, h.reach_v};
}
// Rotary positions turn z but not the values, and normalised queries and keys are no longer what the values are made of, so the w_j above are not what
// is averaged. On tokens of bounded length dlogit_ij = -2c (q_i - k_j) . (dq_i - dk_j). Row by row that is at most
// 2c (rq + rk) (|dQ| + |dK|); over all 2c (rq + rk) sqrt(N) (|dQ| + |dK|), of which half reaches P; |V| <= sqrt(N) rv.
// `tied`: dk_i is dq_i, turned or not turned alike: then sum_ij |dq_i - dk_j|^2 = 2N |dQ|^2 - 2 |sum_i dq_i|^2, and |dQ| + |dK| becomes sqrt(2) |dQ|.
inline HeadBound l2_head_on_ball(const AttentionHead& h, bool tied) {
  const Real logits = 2 * h.scale * (h.reach_q + h.reach_k) * h.reach_v;
  if (!std::isfinite(logits)) return {INFINITY, INFINITY, h.reach_v};
  return {std::sqrt(h.n) * h.v + h.n / 2 * logits * (tied ? std::sqrt(Real(2)) * h.q : h.q + h.k), h.v + logits * (h.q + h.k), h.reach_v};
}
