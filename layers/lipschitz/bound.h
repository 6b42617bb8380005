// bound.h: the algebra of Lipschitz bounds. Every layer states bound(in) under its forward; composition does the rest.
//
// Two norms of a map's inputs and outputs: l2 over all tokens (Frobenius), and rms, the largest RMS of a token (the enforced-Lipschitz
// papers). A bound is an `estimate` (made of power iterations, which come from below), `certified` (never below the truth) or `unbounded`,
// and then it names the layer to blame. An rms constant of infinity means that no finite one is known.
//
// All constants are sums and products of numbers that are not negative, so no rounding is ever amplified: what a whole model's arithmetic can
// lose is below 1e-8 of the result, and certified() adds it to what is claimed. What the norms of weights lose is counted where they are made.
#pragma once
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

struct Parameter;

// Reaches 10^4932: the bound of a hundred blocks is still a number.
using Real = long double;

// What is known of a layer's input: how many tokens, how wide, and the largest l2 norm of a token.
struct Domain {
  int64_t tokens = 0, width = 0;
  Real radius = std::numeric_limits<Real>::infinity();
  Real rms() const { return radius / std::sqrt(Real(width)); }
};

// How long a token of this length can be behind a linear map of this norm: a map that is zero makes zero of any token.
inline Real reach(Real norm, Real radius) { return norm == 0 ? 0 : norm * radius; }

enum class BoundKind { certified, estimate, unbounded };
const char* name_of(BoundKind kind);

// Where a bound came from. A sum is skip x + weight f(x): its one part is f.
struct BoundTree {
  enum Join { leaf, product, sum } join = leaf;
  std::string name, kind;   // of the layer that stated it; both empty where it is only a part of one
  Real lipschitz = 1, rms = 1;
  BoundKind certainty = BoundKind::certified;
  double skip = 0, weight = 0;
  std::vector<std::shared_ptr<const BoundTree>> parts;
};

struct Bound {
  Real lipschitz = 1;   // l2
  BoundKind kind = BoundKind::certified;
  std::string blame;    // unbounded: the first layer that made it so
  Domain out;
  Real rms = std::numeric_limits<Real>::infinity();
  std::shared_ptr<const BoundTree> tree;   // none: the identity

  // Of a map that mixes tokens, with its rms constant where there is one.
  static Bound of(Real lipschitz, BoundKind kind, const Domain& out, Real rms = std::numeric_limits<Real>::infinity());
  // Of a map that treats each token by itself: |f(x) - f(y)| <= c |x - y| for every token, hence the same over all, and RMS differs by the widths.
  static Bound tokenwise(Real c, BoundKind kind, int64_t width_in, const Domain& out) {
    return of(c, kind, out, c * std::sqrt(Real(width_in) / Real(out.width)));
  }
  // Of a map that changes nothing but what is known of its input.
  static Bound identity(const Domain& out) {
    Bound b;
    b.out = out, b.rms = 1;
    return b;
  }
  static Bound without_bound(const std::string& layer, const Domain& out);
  bool bounded() const { return kind != BoundKind::unbounded; }
};

// g after f: the constants multiply, the weaker kind wins, the first culprit keeps the blame. f.out must be what g was asked for.
Bound then(const Bound& f, const Bound& g);
// f with something of constant c behind it, `what`, that leaves the domain as it is.
Bound stretched(const Bound& f, double c, const char* what);
// skip x + weight f(x), weight = max |alpha|: |skip| + weight L_f (triangle inequality).
Bound residual_bound(const Domain& in, const Bound& branch, double weight, double skip = 1);
// What is claimed of a whole model: a little above, for the roundings on the way.
Bound claimed(Bound b);

// Where a bound takes the spectral norms of weights from: estimates of what they are, proofs, or what a constraint promises.
struct NormSource {
  virtual ~NormSource() = default;
  virtual BoundKind kind() const = 0;                                          // certified or estimate
  virtual double sigma(const Parameter& weight) const = 0;                     // of a convolution: of the operator on its map
  virtual std::vector<double> block_sigmas(const Parameter& weight) const = 0; // of each of its row blocks (the heads of q, k and v)
  // Of the convolution whose kernel is this matrix; unless better is known, a pixel lies in at most ceil(K/S)^2 patches.
  virtual double sliding_sigma(const Parameter& kernel) const;
  virtual double row_length(const Parameter& table) const = 0;                 // the longest row of embedded tokens, l2
};

// A walk over a model that asks every layer for its bound and remembers the answers, in order.
struct BoundTrace {
  const NormSource& norms;
  struct Layer {
    std::string name, kind;
    Bound bound;
  };
  std::vector<Layer> layers;
  double temperature = 1;   // of attention, besides the layers' own
  // Gives the bound's tree the layer's name.
  Bound note(const std::string& name, const char* kind, Bound bound);
};
