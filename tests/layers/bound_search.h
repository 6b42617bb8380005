// bound_search.h: layers under test with their measured norms, and two adversaries: a random search with memory and an ascent along gradients.
#pragma once
#include <doctest/doctest.h>
#include <omp.h>

#include <functional>
#include <memory>

#include "engine/autograd.h"
#include "layers/lipschitz/spectral_weights.h"
#include "layers/linear.h"
#include "matrices.h"

inline constexpr double rounding = 1 + 1e-5;   // power iteration keeps its vectors in f32

// A store with layers in it, all parameters filled with numbers of the size given (nothing at 0 or 1, where mistakes hide).
struct Bench {
  ParameterStore store;
  Scope root;
  std::unique_ptr<SpectralNorms> norms;
  std::unique_ptr<BoundTrace> trace;

  explicit Bench(const WeightRules& rules = {.init = {InitRule::spectral}}) : root(store, rules) {}
  Bench(const Bench&) = delete;

  BoundTrace& draw(double size = 0.7) {
    store.finalize(DType::f64, 0, 1);
    for (size_t i = 0; i < store.parameters().size(); i++) {
      const Tensor to = store.raw(int(i));
      std::vector<double> values(to.size());
      for (int64_t j = 0; j < to.size(); j++) values[j] = size * normal_number(store.parameters()[i].name.c_str(), j);
      fill(to, values);
    }
    return measure();
  }
  // After weights were set: u of spectral weights is found anew, their gains stay as they are.
  BoundTrace& measure() {
    Workers workers(1);
    const Tensor gains = store.values().to(Device{});
    SpectralWeights spectral(store);
    spectral.start(workers);
    std::copy_n(gains.data<double>(), gains.size(), store.values().data<double>());
    spectral.iterate(workers, true);
    norms = std::make_unique<SpectralNorms>(store);
    norms->iterate(workers, 500);
    trace = std::make_unique<BoundTrace>(BoundTrace{*norms, {}});
    return *trace;
  }
  void set(const Parameter& parameter, const std::vector<double>& values) {
    REQUIRE(int64_t(values.size()) == parameter.raw().size());
    fill(parameter.raw(), values);
  }
};

inline double length(const std::vector<double>& x) {
  double squares = 0;
  for (const double v : x) squares += v * v;
  return std::sqrt(squares);
}

inline double longest_token(const std::vector<double>& x, int64_t width) {
  double longest = 0;
  for (size_t t = 0; t < x.size(); t += width) longest = std::max(longest, length({x.begin() + t, x.begin() + t + width}));
  return longest;
}

inline void clip_tokens(std::vector<double>& x, int64_t width, double radius) {
  for (size_t t = 0; t < x.size(); t += width) {
    const double l = length({x.begin() + t, x.begin() + t + width});
    if (l > radius) for (size_t i = t; i < t + width; i++) x[i] *= radius / l;
  }
}

using Map = std::function<Tensor(const Tensor&)>;

// What was found: the largest |f(x) - f(y)| / |x - y| in both norms (rms: the largest RMS of a token), and the longest token that came out.
struct Found {
  double stretch = 0, rms = 0, reach = 0;
  void take(const Found& other) {
    stretch = std::max(stretch, other.stretch), rms = std::max(rms, other.rms), reach = std::max(reach, other.reach);
  }
};

inline Found stretch_between(const Shape& shape, const std::vector<double>& x, const std::vector<double>& y, const Map& f) {
  const auto run = [&](const std::vector<double>& v) { return f(Tensor::from(shape, v, DType::f64)); };
  const Tensor at_x = run(x);
  const std::vector<double> fx = at_x.values(), fy = run(y).values();
  const int64_t in = shape[-1], out = at_x.shape()[-1];
  std::vector<double> apart(x.size()), moved(fx.size());
  for (size_t i = 0; i < x.size(); i++) apart[i] = y[i] - x[i];
  for (size_t i = 0; i < fx.size(); i++) moved[i] = fy[i] - fx[i];
  return {length(moved) / length(apart), longest_token(moved, out) / longest_token(apart, in) * std::sqrt(double(in) / double(out)), longest_token(fx, out)};
}

// A random search with memory: every second pair is a small change of the best one so far. Tokens stay within `radius`.
inline Found search(const Shape& shape, double radius, const Map& f, int tries = 600) {
  omp_set_num_threads(1);   // layers this small only wait for their threads
  const int64_t n = shape.size(), width = shape[-1];
  Found found;
  struct Memory {
    std::vector<double> x, d;
  } best[2];   // of the l2 norm and of the rms norm
  int64_t drawn = 0;
  const auto random = [&](double size) {
    std::vector<double> v(n);
    for (double& x : v) x = size * normal_number("search", drawn++);
    return v;
  };
  for (int k = 0; k < tries; k++) {
    // Inputs of all sizes, from nearly nothing to the rim of the ball, because some layers are worst at zero.
    const double size = radius * std::pow(10.0, -double(k % 7)) * 2 / std::sqrt(double(width));
    std::vector<double> x = random(size), d = random(1);
    if (const Memory& m = best[k / 2 % 2]; k % 2 && !m.x.empty()) {
      const double change = std::pow(10.0, -double(k % 5) / 2);
      for (int64_t i = 0; i < n; i++) {
        x[i] = m.x[i] * (1 + 0.3 * change * x[i] / size);
        d[i] = m.d[i] + change * length(m.d) / std::sqrt(double(n)) * d[i];
      }
    }
    clip_tokens(x, width, radius);
    std::vector<double> y(n), apart(n);
    // Long steps and short ones, but none so short that rounding in f(x) would look like a stretch.
    const double step = (k % 3 ? 1e-5 * radius : 0.5 * std::max(length(x), 1e-6 * radius)) / length(d);
    for (int64_t i = 0; i < n; i++) y[i] = x[i] + step * d[i];
    clip_tokens(y, width, radius);
    for (int64_t i = 0; i < n; i++) apart[i] = y[i] - x[i];
    Found pair = stretch_between(shape, x, y, f);
    if (length(apart) < 1e-7 * radius) pair.stretch = pair.rms = 0;
    if (pair.stretch > found.stretch) best[0] = {x, d};
    if (pair.rms > found.rms) best[1] = {x, d};
    found.take(pair);
  }
  return found;
}

// Climbs |J(x) v| in one of the norms by the tape's gradients, from the inputs given and from random ones: v by power iteration on J, x along
// d(u J v)/dx = (J(x + h v)^T u - J(x - h v)^T u) / 2h. What it reports are stretches between two inputs, never a derivative.
class Ascent {
 public:
  Ascent(const Shape& shape, double radius, bool rms, Map f)
      : shape_(shape), width_(shape[-1]), radius_(radius), h_(1e-5 * radius), rms_(rms), f_(std::move(f)) {}

  Found climb(std::vector<double> x, int steps) {
    omp_set_num_threads(1);
    std::vector<double> v(x.size());
    for (size_t i = 0; i < v.size(); i++) v[i] = normal_number("ascent", int64_t(i) + 1000 * drawn_);
    drawn_++;
    clip_tokens(x, width_, radius_ - h_);
    double best = settle(x, v, 8), stride = 0.3 * radius_;
    for (int k = 0; k < steps && stride > 1e-4 * radius_; k++) {
      const std::vector<double> u = dual(moved(x, v));
      std::vector<double> up = pulled(shifted(x, v, h_), u), down = pulled(shifted(x, v, -h_), u), next = x, w = v;
      for (size_t i = 0; i < up.size(); i++) up[i] -= down[i];
      const double slope = length(up);
      if (!(slope > 0)) break;
      for (size_t i = 0; i < x.size(); i++) next[i] += stride * up[i] / slope;
      clip_tokens(next, width_, radius_ - h_);
      const double value = settle(next, w, 3);
      if (value > best) best = value, x = next, v = w, stride *= 1.3;
      else stride *= 0.5;
    }
    return stretch_between(shape_, shifted(x, v, -h_), shifted(x, v, h_), f_);
  }

 private:
  std::vector<double> shifted(std::vector<double> x, const std::vector<double>& v, double by) const {
    for (size_t i = 0; i < x.size(); i++) x[i] += by * v[i];
    return x;
  }
  std::vector<double> moved(const std::vector<double>& x, const std::vector<double>& v) {
    const Tensor up = f_(Tensor::from(shape_, shifted(x, v, h_), DType::f64)), down = f_(Tensor::from(shape_, shifted(x, v, -h_), DType::f64));
    out_ = up.shape();
    std::vector<double> a = up.values();
    const std::vector<double> b = down.values();
    for (size_t i = 0; i < a.size(); i++) a[i] = (a[i] - b[i]) / (2 * h_);
    return a;
  }
  // J(x)^T u
  std::vector<double> pulled(const std::vector<double>& x, const std::vector<double>& u) {
    Tensor in = Tensor::from(shape_, x, DType::f64);
    want_grad(in);
    Tape tape;
    Tensor y;
    {
      const TapeScope open(&tape);
      y = f_(in);
    }
    tape.backward(y, Tensor::from(y.shape(), u, DType::f64));
    const Tensor g = grad_of(in);
    return g ? g.values() : std::vector<double>(x.size(), 0.0);
  }
  // The u with |u|* = 1 and u . y = |y|: all of y, or its longest token.
  std::vector<double> dual(std::vector<double> y) const {
    const int64_t width = out_[-1];
    if (rms_) {
      const double longest = longest_token(y, width);
      bool taken = false;
      for (size_t t = 0; t < y.size(); t += width) {
        const bool keep = !taken && length({y.begin() + t, y.begin() + t + width}) == longest;
        taken |= keep;
        for (size_t i = t; i < t + width && !keep; i++) y[i] = 0;
      }
    }
    const double l = std::max(length(y), 1e-300);
    for (double& e : y) e /= l;
    return y;
  }
  // The best direction at x, |v| = 1 (rms: every token's), and how far it is stretched.
  double settle(const std::vector<double>& x, std::vector<double>& v, int times) {
    double value = 0;
    for (int k = 0; k <= times; k++) {
      for (size_t t = 0; t < v.size(); t += rms_ ? width_ : v.size()) {
        const size_t end = rms_ ? t + width_ : v.size();
        const double l = length({v.begin() + t, v.begin() + end});
        for (size_t i = t; i < end && l > 0; i++) v[i] /= l;
      }
      const std::vector<double> y = moved(x, v);
      value = rms_ ? longest_token(y, out_[-1]) : length(y);
      if (k < times) v = pulled(x, dual(y));
    }
    return value;
  }

  Shape shape_, out_;
  int64_t width_;
  double radius_, h_;
  bool rms_;
  Map f_;
  int64_t drawn_ = 0;
};

inline Found ascend(const Shape& shape, double radius, const Map& f, int starts = 8, int steps = 60) {
  Found found;
  for (const bool rms : {false, true}) {
    Ascent ascent(shape, radius, rms, f);
    for (int k = 0; k < starts; k++) {
      std::vector<double> x(shape.size());
      const double size = radius * std::pow(10.0, -0.5 * double(k % 4)) / std::sqrt(double(shape[-1]));
      for (size_t i = 0; i < x.size(); i++) x[i] = size * normal_number("starts", int64_t(i) + 1000 * k);
      found.take(ascent.climb(x, steps));
    }
  }
  return found;
}

// The bound holds, and it is not so loose that it would hold for anything: at least `tight` of it is reached, `tight_rms` of the rms constant.
inline void check_bound(const Bound& bound, const Found& found, double tight, double tight_rms = 0) {
  CAPTURE(found.stretch);
  CAPTURE(bound.lipschitz);
  CAPTURE(found.rms);
  CAPTURE(bound.rms);
  CAPTURE(found.reach);
  CAPTURE(bound.out.radius);
  CHECK(std::isfinite(bound.lipschitz));
  CHECK(std::isfinite(bound.rms));
  CHECK(found.stretch <= bound.lipschitz * rounding);
  CHECK(found.rms <= bound.rms * rounding);
  CHECK(found.stretch >= bound.lipschitz * tight);
  CHECK(found.rms >= bound.rms * tight_rms);
  CHECK(found.reach <= bound.out.radius * rounding);
}
