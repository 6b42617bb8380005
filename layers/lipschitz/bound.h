// bound.h: the algebra of Lipschitz bounds. Every layer states bound(in) under its forward; composition does the rest.
//
// Norm: l2 over all tokens (Frobenius). A bound is an `estimate` (made of power iterations, which come from below), `certified`
// (never below the truth) or `unbounded`, and then it names the layer to blame.
#pragma once
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

class SpectralNorms;

// What is known of a layer's input: how many tokens, how wide, and the largest l2 norm of a token.
struct Domain {
  int64_t tokens = 0, width = 0;
  double radius = std::numeric_limits<double>::infinity();
};

enum class BoundKind { certified, estimate, unbounded };
const char* name_of(BoundKind kind);

struct Bound {
  double lipschitz = 1;
  BoundKind kind = BoundKind::certified;
  std::string blame;   // unbounded: the first layer that made it so
  Domain out;

  static Bound of(double lipschitz, BoundKind kind, const Domain& out) { return {lipschitz, kind, "", out}; }
  static Bound without_bound(const std::string& layer, const Domain& out) {
    return {std::numeric_limits<double>::infinity(), BoundKind::unbounded, layer, out};
  }
};

// g after f: the constants multiply, the weaker kind wins, the first culprit keeps the blame. f.out must be what g was asked for.
Bound then(const Bound& f, const Bound& g);
// x + f(x) with the branch's constant multiplied by `weight` = max |alpha|: 1 + weight L_f (triangle inequality).
Bound residual_bound(const Domain& in, const Bound& branch, double weight);

// A walk over a model that asks every layer for its bound and remembers the answers, in order.
struct BoundTrace {
  const SpectralNorms& norms;
  struct Layer {
    std::string name, kind;
    Bound bound;
  };
  std::vector<Layer> layers;
  Bound note(const std::string& name, const char* kind, const Bound& bound) {
    layers.push_back({name, kind, bound});
    return bound;
  }
};
