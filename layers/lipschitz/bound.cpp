// bound.cpp: composition of bounds.
#include "layers/lipschitz/bound.h"

#include <algorithm>

#include "layers/parameter.h"

const char* name_of(BoundKind kind) {
  return kind == BoundKind::certified ? "certified" : kind == BoundKind::estimate ? "estimate" : "unbounded";
}

namespace {

constexpr Real infinity = std::numeric_limits<Real>::infinity();
Real product(Real a, Real b) { return std::isinf(a) || std::isinf(b) ? infinity : a * b; }

using Part = std::shared_ptr<const BoundTree>;

// The tree of a bound that was just made; `parts` and the rest are for the caller to fill in.
BoundTree tree_of(const Bound& b, BoundTree::Join join) {
  BoundTree tree;
  tree.join = join;
  tree.lipschitz = b.lipschitz;
  tree.rms = b.rms;
  tree.certainty = b.kind;
  return tree;
}

// A product without a name has no life of its own: its factors become those of the product around it.
void add_factors(std::vector<Part>& factors, const Part& part) {
  if (!part) return;
  if (part->join == BoundTree::product && part->name.empty() && part->kind.empty()) factors.insert(factors.end(), part->parts.begin(), part->parts.end());
  else factors.push_back(part);
}

}  // namespace

Bound Bound::of(Real lipschitz, BoundKind kind, const Domain& out, Real rms) {
  Bound b{lipschitz, kind, "", out, rms, nullptr};
  b.tree = std::make_shared<BoundTree>(tree_of(b, BoundTree::leaf));
  return b;
}

Bound Bound::without_bound(const std::string& layer, const Domain& out) {
  Bound b = of(infinity, BoundKind::unbounded, out);
  b.blame = layer;
  return b;
}

Bound then(const Bound& f, const Bound& g) {
  Bound both;
  both.kind = std::max(f.kind, g.kind);
  both.blame = f.bounded() ? g.blame : f.blame;
  both.lipschitz = both.bounded() ? product(f.lipschitz, g.lipschitz) : infinity;
  both.rms = both.bounded() ? product(f.rms, g.rms) : infinity;
  both.out = g.out;
  if (!f.tree || !g.tree) {
    both.tree = f.tree ? f.tree : g.tree;
    return both;
  }
  BoundTree tree = tree_of(both, BoundTree::product);
  add_factors(tree.parts, f.tree);
  add_factors(tree.parts, g.tree);
  both.tree = std::make_shared<BoundTree>(std::move(tree));
  return both;
}

Bound stretched(const Bound& f, double c, const char* what) {
  Bound factor = Bound::of(c, BoundKind::certified, f.out, c);
  BoundTree tree = *factor.tree;
  tree.kind = what;
  factor.tree = std::make_shared<BoundTree>(std::move(tree));
  return then(f, factor);
}

Bound residual_bound(const Domain& in, const Bound& branch, double weight, double skip) {
  const bool off = weight == 0;   // switched off: moves nothing
  Bound sum = branch;
  sum.out = in;
  sum.out.radius = reach(std::abs(skip), in.radius) + reach(weight, branch.out.radius);
  if (off) sum.kind = BoundKind::certified, sum.blame.clear(), sum.lipschitz = sum.rms = 0;
  if (sum.bounded()) {
    sum.lipschitz = std::abs(skip) + weight * sum.lipschitz;
    sum.rms = std::abs(skip) + weight * sum.rms;
  }
  BoundTree tree = tree_of(sum, BoundTree::sum);
  tree.skip = std::abs(skip);
  tree.weight = weight;
  if (branch.tree) tree.parts.push_back(branch.tree);
  sum.tree = std::make_shared<BoundTree>(std::move(tree));
  return sum;
}

double NormSource::sliding_sigma(const Parameter& kernel) const {
  const ParameterInfo& info = kernel.info();
  return std::ceil(double(info.shape[2]) / double(info.stride)) * sigma(kernel);
}

Bound claimed(Bound b) {
  b.lipschitz *= 1 + 1e-8L;
  b.rms *= 1 + 1e-8L;
  return b;
}

Bound BoundTrace::note(const std::string& name, const char* kind, Bound bound) {
  BoundTree tree;
  if (bound.tree && bound.tree->name.empty() && bound.tree->kind.empty()) {
    tree = *bound.tree;
  } else {   // a layer of one layer, or of none
    tree = tree_of(bound, bound.tree ? BoundTree::product : BoundTree::leaf);
    if (bound.tree) tree.parts.push_back(bound.tree);
  }
  tree.name = name;
  tree.kind = kind;
  bound.tree = std::make_shared<BoundTree>(std::move(tree));
  layers.push_back({name, kind, bound});
  return bound;
}
