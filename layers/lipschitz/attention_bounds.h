// attention_bounds.h: Lipschitz constants of one head of attention, in every form, as formulas.
//
// N tokens attend to each other, by projections with spectral norms q, k and v. Facts used by all: |diag(p) - p p^T| <= 1/2 in l2 and at most 1
// from l_inf to l_1; |P| <= sqrt N for a row-stochastic P; position biases and masks shift logits by constants.
#pragma once
#include <cmath>

#include "layers/lipschitz/bound.h"

struct AttentionHead {
  Real n, d;                          // tokens, width
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
// L <= nu / sqrt(eps) [N tau / 2 (|Wq| + |Wk|) + sqrt(N) |Wv|]                    (reference lipsformer.md 2.6, bound (2))
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
// Token by token: |do_i| <= |Wv| max|dx| + rv scale (rk |Wq| + rq |Wk|) max|dx|    (reference enforced_lipschitz.md 3.3, 3.5 (iii))
inline HeadBound dot_head(const AttentionHead& h) {
  const Real logits = h.scale * (h.q * h.reach_k + h.reach_q * h.k) * h.reach_v;
  if (!std::isfinite(logits)) return {INFINITY, INFINITY, h.reach_v};
  return {std::sqrt(h.n) * h.v + h.n / 2 * logits, h.v + logits, h.reach_v};
}

// x e^(x+1) = y, solved for x from above: the function is convex, so Newton's steps from above stay there.
inline Real inverse_phi(Real y) {
  Real x = std::log1p(y);
  for (int i = 0; i < 60; i++) x -= (x * std::exp(x + 1) - y) / ((x + 1) * std::exp(x + 1));
  return x * (1 + 1e-9L) + 1e-12L;
}

// softmax(-c |z_i - z_j|^2) z W with z = x Wq and W = Wq^T Wv / sqrt d. With w_j = z_j - z_i the row's gradient is
// sum_j P_ij dz_j + 2c Cov(w) dz_i + 2c sum_j P_ij (w_j . dz_j)(w_j - mean w), and c E|w|^2 <= phi^-1(N - 1) whatever c is. Rows of both sums
// have weights of at most 1 and 2 phi^-1, so |dg| <= (sqrt N + 2 phi^-1 + sqrt N 2 phi^-1) |dz|. (Kim et al. 2021 have the same 4 phi^-1 + 1;
// the norm of Wq enters twice, once by z and once by W.)
inline HeadBound l2_head(const AttentionHead& h) {
  const Real spread = inverse_phi(h.n - 1), root = std::sqrt(h.n), values = h.q * h.q * h.v / std::sqrt(h.d);
  return {(root * (1 + 2 * spread) + 2 * spread) * values, (1 + 4 * spread) * values, h.reach_q * h.q * h.v / std::sqrt(h.d)};
}
// Rotary positions turn z but not the values, so the w_j above are no longer what is averaged: with W and c as there,
// |dlogit_ij| <= 2c |z_i - z_j| |dz_i - dz_j| on tokens of bounded length. Row by row that is at most 8c rq |Wq| max|dx|; over all
// 4c rq sqrt(2N) |Wq| |dx|, of which half reaches P; values have length |W| R.
inline HeadBound l2_head_on_ball(const AttentionHead& h) {
  const Real values = h.q * h.q * h.v / std::sqrt(h.d), reach = h.reach_q * h.q * h.v / std::sqrt(h.d), logits = h.scale * h.reach_q * h.q * reach;
  if (!std::isfinite(logits)) return {INFINITY, INFINITY, reach};
  return {std::sqrt(h.n) * values + 2 * std::sqrt(Real(2)) * h.n * logits, values + 8 * logits, reach};
}
