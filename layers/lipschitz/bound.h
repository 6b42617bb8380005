// bound.h: the algebra of Lipschitz bounds. Every layer states bound(in) under its forward; composition does the rest.
//
// Two norms of a map's inputs and outputs: l2 over all tokens (Frobenius), and rms, the largest RMS of a token (the enforced-Lipschitz
// papers). A bound is an `estimate` (made of power iterations, which come from below), `certified` (never below the truth) or `unbounded`,
// and then it names the layer to blame. An rms constant of infinity means that no finite one is known.
#pragma once
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

struct Parameter;

// What is known of a layer's input: how many tokens, how wide, and the largest l2 norm of a token.
struct Domain {
  int64_t tokens = 0, width = 0;
  double radius = std::numeric_limits<double>::infinity();
  double rms() const { return radius / std::sqrt(double(width)); }
};

enum class BoundKind { certified, estimate, unbounded };
const char* name_of(BoundKind kind);

struct Bound {
  double lipschitz = 1;   // l2
  BoundKind kind = BoundKind::certified;
  std::string blame;      // unbounded: the first layer that made it so
  Domain out;
  double rms = std::numeric_limits<double>::infinity();

  // Of a map that mixes tokens: its rms constant, where there is one, is set by hand.
  static Bound of(double lipschitz, BoundKind kind, const Domain& out) { return {lipschitz, kind, "", out}; }
  // Of a map that treats each token by itself: |f(x) - f(y)| <= c |x - y| for every token, hence the same over all, and RMS differs by the widths.
  static Bound tokenwise(double c, BoundKind kind, int64_t width_in, const Domain& out) {
    return {c, kind, "", out, c * std::sqrt(double(width_in) / double(out.width))};
  }
  static Bound without_bound(const std::string& layer, const Domain& out) {
    return {std::numeric_limits<double>::infinity(), BoundKind::unbounded, layer, out};
  }
};

// g after f: the constants multiply, the weaker kind wins, the first culprit keeps the blame. f.out must be what g was asked for.
Bound then(const Bound& f, const Bound& g);
// f with something of constant c behind it that leaves the domain as it is.
Bound stretched(Bound f, double c);
// skip x + weight f(x), weight = max |alpha|: |skip| + weight L_f (triangle inequality).
Bound residual_bound(const Domain& in, const Bound& branch, double weight, double skip = 1);

// Where a bound takes the spectral norms of weights from: what they are, or what a constraint promises.
struct NormSource {
  virtual ~NormSource() = default;
  virtual double sigma(const Parameter& weight) const = 0;
  virtual double group_sigma(const Parameter& weight) const = 0;   // the largest of its row groups
  virtual double row_length(const Parameter& table) const = 0;     // the longest row of embedded tokens, l2
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
  Bound note(const std::string& name, const char* kind, const Bound& bound) {
    layers.push_back({name, kind, bound});
    return bound;
  }
};
