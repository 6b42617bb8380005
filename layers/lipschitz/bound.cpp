// bound.cpp: composition of bounds.
#include "layers/lipschitz/bound.h"

#include <algorithm>

const char* name_of(BoundKind kind) {
  return kind == BoundKind::certified ? "certified" : kind == BoundKind::estimate ? "estimate" : "unbounded";
}

Bound then(const Bound& f, const Bound& g) {
  Bound both;
  both.kind = std::max(f.kind, g.kind);
  both.blame = f.kind == BoundKind::unbounded ? f.blame : g.blame;
  both.lipschitz = both.kind == BoundKind::unbounded ? std::numeric_limits<double>::infinity() : f.lipschitz * g.lipschitz;
  both.out = g.out;
  return both;
}

Bound residual_bound(const Domain& in, const Bound& branch, double weight) {
  Bound sum = branch;
  if (weight == 0) sum = Bound::of(0, BoundKind::certified, branch.out);   // a branch that is switched off moves nothing
  if (sum.kind != BoundKind::unbounded) sum.lipschitz = 1 + weight * sum.lipschitz;
  sum.out = in;
  sum.out.radius = in.radius + (weight == 0 ? 0 : weight * branch.out.radius);
  return sum;
}
