// stretch.h: how far a map is known to stretch: lower bounds of its Lipschitz constant, found on given inputs by ascent along the tape's gradients.
#pragma once
#include <functional>
#include <vector>

#include "engine/autograd.h"

// Every number that comes out is |f(a) - f(b)| / |a - b| of two inputs a, b of one sample, never a derivative, so it is a lower bound however badly the
// search went (but for the rounding of f, which a step h far above it keeps small).
//
// Per sample: v by power iteration on the Jacobian J(x), with J v as a difference over 2h and J^T u from the tape; then x along
// d(u J v)/dx = (J(x + h v)^T u - J(x - h v)^T u) / 2h, for as long as that helps.
class StretchSearch {
 public:
  using Map = std::function<Tensor(const Tensor&)>;          // [B, ...] -> [B, ...], each sample by itself
  using Domain = std::function<void(std::vector<double>&)>;  // moves inputs [B, ...] to where the map is meant, in place
  struct Options {
    double step = 1e-3;    // h, as l2 norm (rms: as largest token RMS)
    int power_steps = 10;  // at the first x
    int ascents = 10;      // moves of x, each followed by a few power steps
    double stride = 0.1;   // of the first move, as l2 norm
    bool rms = false;      // the largest RMS of a token instead of l2; tokens lie along the last dimension
  };
  StretchSearch(Map f, Domain into_domain, const Options& options) : f_(std::move(f)), into_domain_(std::move(into_domain)), options_(options) {}

  // The largest stretch found from each sample of x [B, ...].
  std::vector<double> from(const Tensor& x, uint64_t seed);
  // Where the last search found them [B, ...].
  const std::vector<double>& places() const { return x_; }

 private:
  using Numbers = std::vector<double>;
  struct Pair {
    Numbers apart, moved;           // a - b and f(a) - f(b)
    std::vector<double> stretch;    // [B]
  };
  Pair pair(const Numbers& x, const Numbers& v);
  Numbers pulled(const Numbers& x, const Numbers& u);   // J(x)^T u
  Pair settle(const Numbers& x, Numbers& v, int times);
  void normalise(Numbers& v) const;
  Numbers dual(Numbers y) const;
  double size(const Numbers& x, int64_t sample, int64_t samples, int64_t width) const;

  Map f_;
  Domain into_domain_;
  Options options_;
  Shape in_, out_;
  Numbers x_;
  Device device_;
  DType dtype_ = DType::f64;
};
