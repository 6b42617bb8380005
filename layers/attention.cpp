// attention.cpp: Lipschitz bounds of windowed attention. The constant of a windowed layer is that of one window (block-diagonal).
#include "layers/attention.h"

namespace {

// Per head, N tokens attending to each other, projections with norms q, k, v. Facts used by both: |diag(p) - p p^T| <= 1/2 and
// |P| <= sqrt N for a row-stochastic P; position biases and masks shift logits by constants.

// nu softmax(tau q^ k^T) v^ with x^ = x / sqrt(|x|^2 + eps): |d x^| <= |dx| / sqrt eps and |Q^|, |K^|, |V^| <= sqrt N, hence
// L <= nu / sqrt(eps) [N tau / 2 (|Wq| + |Wk|) + sqrt(N) |Wv|]                    (reference lipsformer.md 2.6, bound (2))
double cosine_bounded(double n, double tau, double nu, double eps, double q, double k, double v) {
  return nu / std::sqrt(eps) * (n * tau / 2 * (q + k) + std::sqrt(n) * v);
}

// softmax(q k^T / sqrt d) v where every projected token has norm at most rq, rk, rv: dO = dP V + P dV, |dP| <= 1/2 |dS|,
// |dS| <= (|dQ| |K| + |Q| |dK|) / sqrt d with |Q| <= sqrt(N) rq and so on, hence
// L <= sqrt(N) |Wv| + 1/2 sqrt(N) rv sqrt(N) (|Wq| rk + rq |Wk|) / sqrt d
double dot_on_ball(double n, double d, double q, double k, double v, double rq, double rk, double rv) {
  return std::sqrt(n) * v + 0.5 * n * rv * (q * rk + rq * k) / std::sqrt(d);
}

}  // namespace

// Heads read the same tokens and write side by side: L^2 = sum_h L_h^2. Each head's projection is part of the fused qkv, so its norm is
// at most that of the whole.
Bound Attention::bound(const Domain& in, BoundTrace& trace) const {
  const double n = double(tokens()), d = double(width) / config.heads, sigma = trace.norms.sigma(qkv.weight);
  const Bound projected = qkv.bound(in, trace);
  const double reach = projected.out.radius, heads = std::sqrt(double(config.heads));
  Domain out{in.tokens, width, 0};
  Bound inside;
  switch (config.similarity) {
    case Similarity::cosine_bounded:
      out.radius = config.nu * heads;   // each head's row is shorter than nu
      inside = Bound::of(heads * cosine_bounded(n, config.tau, config.nu, config.eps, sigma, sigma, sigma), BoundKind::estimate, out);
      break;
    case Similarity::dot:
      out.radius = reach * heads;       // a row of a head is a mean of values, each no longer than the projected token
      if (std::isfinite(reach))
        inside = Bound::of(heads * dot_on_ball(n, d, sigma, sigma, sigma, reach, reach, reach), BoundKind::estimate, out);
      else
        inside = Bound::without_bound(name, out);
      break;
    case Similarity::l2:
    case Similarity::cosine:
      // Values are not normalised and the clamp of q and k at 1e-12 lets the similarity turn over within 1e-12: no useful constant exists
      // (reference lipsformer.md 2.7).
      out.radius = reach * heads;
      inside = Bound::without_bound(name, out);
      break;
  }
  // The fused projection is already inside the constant above; what follows is the output projection alone.
  return trace.note(name, "Attention", then(inside, proj.bound(out, trace)));
}
