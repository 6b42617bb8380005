// bound_search.h: layers under test with their measured norms, and two adversaries: a random search with memory and the library's ascent.
#pragma once
#include <doctest/doctest.h>
#include <omp.h>

#include <functional>
#include <memory>

#include "layers/lipschitz/spectral_weights.h"
#include "layers/linear.h"
#include "layers/lipschitz/stretch.h"
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
    spectral.iterate(true);
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

// The library's ascent in both norms, from inputs of several sizes; tokens stay within `radius`. shape is of one sample, [1, ...].
inline Found ascend(const Shape& shape, double radius, const Map& f, int starts = 8, int steps = 60) {
  omp_set_num_threads(1);
  std::vector<int64_t> dims = shape.dims();
  dims[0] = starts;
  const int64_t width = shape[-1];
  std::vector<double> x;
  for (int k = 0; k < starts; k++) {
    const double size = radius * std::pow(10.0, -0.5 * double(k % 4)) / std::sqrt(double(width));
    for (int64_t i = 0; i < shape.size(); i++) x.push_back(size * normal_number("starts", i + 1000 * k));
  }
  const auto inside = [&](std::vector<double>& tokens) { clip_tokens(tokens, width, radius); };
  inside(x);
  Found found;
  for (const bool rms : {false, true}) {
    StretchSearch search(f, inside, {.step = 1e-5 * radius, .power_steps = 8, .ascents = steps, .stride = 0.3 * radius, .rms = rms});
    double& largest = rms ? found.rms : found.stretch;
    for (const double stretch : search.from(Tensor::from(Shape(dims), x, DType::f64), 7)) largest = std::max(largest, stretch);
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
