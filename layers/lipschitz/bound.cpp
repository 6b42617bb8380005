// bound.cpp: composition of bounds.
#include "layers/lipschitz/bound.h"

#include <algorithm>

const char* name_of(BoundKind kind) {
  return kind == BoundKind::certified ? "certified" : kind == BoundKind::estimate ? "estimate" : "unbounded";
}

namespace {
constexpr double infinity = std::numeric_limits<double>::infinity();
double product(double a, double b) { return std::isinf(a) || std::isinf(b) ? infinity : a * b; }
}  // namespace

Bound then(const Bound& f, const Bound& g) {
  Bound both;
  both.kind = std::max(f.kind, g.kind);
  both.blame = f.kind == BoundKind::unbounded ? f.blame : g.blame;
  const bool bounded = both.kind != BoundKind::unbounded;
  both.lipschitz = bounded ? product(f.lipschitz, g.lipschitz) : infinity;
  both.rms = bounded ? product(f.rms, g.rms) : infinity;
  both.out = g.out;
  return both;
}

Bound stretched(Bound f, double c) {
  f.lipschitz *= c;
  f.rms *= c;
  return f;
}

Bound residual_bound(const Domain& in, const Bound& branch, double weight, double skip) {
  Bound sum = branch;
  if (weight == 0) sum = Bound::tokenwise(0, BoundKind::certified, in.width, {in.tokens, in.width, branch.out.radius});   // switched off: moves nothing
  if (sum.kind != BoundKind::unbounded) {
    sum.lipschitz = std::abs(skip) + (weight == 0 ? 0 : weight * sum.lipschitz);
    sum.rms = std::abs(skip) + (weight == 0 ? 0 : weight * sum.rms);
  }
  sum.out = in;
  sum.out.radius = std::abs(skip) * in.radius + (weight == 0 ? 0 : weight * branch.out.radius);
  return sum;
}
