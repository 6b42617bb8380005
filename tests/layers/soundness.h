// soundness.h: a random layer or network for every number, and whether the bound that is certified for its f32 weights holds against what is found.
//
// The bound is made from an f32 store. The map runs in f64 on a second store, built alike and holding the same numbers. Everything is a function of the
// kind and the number, so a case that fails can be repeated: LIPSGRAD_SOUNDNESS=1234-1234 runs case 1234 alone, LIPSGRAD_SOUNDNESS=10000 the first 10,000.
#pragma once
#include <doctest/doctest.h>
#include <omp.h>

#include <cstdio>
#include <cstdlib>

#include "bound_search.h"
#include "layers/lipschitz/certified_norms.h"
#include "layers/lipschitz/singular_value.h"
#include "layers/norm.h"

namespace soundness {

class Draw {
 public:
  Draw(const std::string& stream, int64_t number) : numbers_(RandomStream(1, stream), 0, uint64_t(number)) {}
  bool chance(double p) { return numbers_.chance(p); }
  int64_t between(int64_t low, int64_t high) { return low + int64_t(numbers_.below(uint32_t(high - low + 1))); }
  double real(double low, double high) { return numbers_.uniform(low, high); }
  double magnitude(double low, double high) { return std::exp(real(std::log(low), std::log(high))); }
  double normal() { return numbers_.normal(); }
  template <class T> T one_of(std::initializer_list<T> all) { return all.begin()[between(0, int64_t(all.size()) - 1)]; }
  int64_t size() { return chance(0.8) ? between(1, 8) : chance(0.8) ? between(1, 24) : between(25, 64); }

 private:
  RandomSequence numbers_;
};

struct Subject {
  std::shared_ptr<ParameterStore> store;
  Shape input;   // of one sample, [1, ...]; tokens lie along the last dimension
  std::function<Tensor(const Tensor&, const Mode&)> map;
  std::function<Bound(const Domain&, BoundTrace&)> bound;
  Domain domain(double radius) const { return {input.size() / input[-1], input[-1], radius}; }
};
struct Kind {
  const char* name;
  Subject (*build)(Draw&);
};

// A layer with a store of its own: make(scope) lays it out.
template <class Make> auto laid_out(const WeightRules& rules, Make make) {
  using Layer = decltype(make(std::declval<Scope>()));
  const auto store = std::make_shared<ParameterStore>();
  return std::pair{store, std::make_shared<Layer>(make(Scope(*store, rules) / "layer"))};
}

// Norms over the batch need their bias.
inline WeightRules weight_rules(Draw& d, const NormPart& norm = {}) {
  WeightRules rules;
  rules.weight.kind = d.one_of({WeightPart::plain, WeightPart::plain, WeightPart::plain, WeightPart::sigma_reparam, WeightPart::spectral_norm,
                                WeightPart::weight_norm});
  rules.bias = d.chance(0.7) || norm.over_the_batch();
  return rules;
}

inline NormPart norm_part(Draw& d) {
  NormPart part;
  part.kind = d.one_of({NormKind::layer, NormKind::rms, NormKind::center, NormKind::ball, NormKind::batch, NormKind::moving_average_batch, NormKind::power,
                        NormKind::unified, NormKind::none});
  part.eps = d.magnitude(1e-5, 1);
  part.ball_radius = d.magnitude(0.1, 10);
  return part;
}

// Numbers of a size near 1: mostly normal; of rank one, with one huge number, diagonal, of one sign, or zero.
inline std::vector<double> matrix_numbers(Draw& d, int64_t rows, int64_t columns) {
  std::vector<double> w(size_t(rows * columns)), left(rows), right(columns);
  for (double& v : w) v = d.normal();
  for (double& v : left) v = d.normal();
  for (double& v : right) v = d.normal();
  const double form = d.real(0, 1);
  for (int64_t i = 0; i < rows * columns; i++) {
    const int64_t r = i / columns, c = i % columns;
    if (form < 0.12) w[i] = left[r] * right[c];
    else if (form < 0.22) w[i] = r % columns == c ? std::sqrt(double(columns)) * (left[r] < 0 ? -1 : 1) : 0;
    else if (form < 0.30) w[i] = std::abs(w[i]);
    else if (form < 0.33) w[i] = 0;
  }
  if (form > 0.9) w[d.between(0, rows * columns - 1)] *= 30;
  return w;
}

// Kernels of one tap a channel: they move the map, and on the edge of a narrow one nothing is left.
inline std::vector<double> shift_kernels(Draw& d, int64_t channels, int64_t area) {
  std::vector<double> w(size_t(channels * area), 0.0);
  const bool alike = d.chance(0.5);
  int64_t tap = d.between(0, area - 1);
  for (int64_t c = 0; c < channels; c++) {
    if (!alike) tap = d.between(0, area - 1);
    w[size_t(c * area + tap)] = std::sqrt(double(area)) * (d.chance(0.5) ? 1 : d.normal());
  }
  return w;
}

inline bool ends_with(const std::string& name, const char* what) { return name == what || name.ends_with(std::string(".") + what); }

// Half of the networks have weights that keep lengths roughly as they are; the others are of one size between 1e-3 and 3, or each of its own, so that
// one part is all that counts.
inline void draw_numbers(ParameterStore& store, Draw& d) {
  const bool even = d.chance(0.5), alike = d.chance(0.5);
  double common = d.magnitude(1e-3, 3);
  for (size_t i = 0; i < store.parameters().size(); i++) {
    const ParameterInfo& info = store.parameters()[i];
    const int64_t rows = info.shape[0], columns = info.size() / rows;
    std::vector<double> values(size_t(info.size()));
    if (!alike) common = d.magnitude(1e-3, 10);
    if (info.kind == ParameterKind::vector) {
      const bool factor = !ends_with(info.name, "bias");
      const double size = d.chance(0.2) ? common : factor ? d.real(0.2, 1.5) : d.chance(0.3) ? 0 : 0.3;
      for (double& v : values) v = size * (factor && d.chance(0.5) ? 1 : d.normal());
    } else {
      const double size = even ? d.real(0.3, 2) / std::sqrt(double(columns)) : common;
      values = info.kind == ParameterKind::depthwise && d.chance(0.4) ? shift_kernels(d, rows, columns) : matrix_numbers(d, rows, columns);
      for (double& v : values) v *= size;
    }
    fill(store.raw(int(i)), values);
  }
  for (size_t i = 0; i < store.buffers().size(); i++) {
    const BufferInfo& info = store.buffers()[i];
    if (ends_with(info.name, "alpha")) continue;   // follows from the weights, or is a constant of the layer
    std::vector<double> values(size_t(info.shape.size()));
    const bool variance = ends_with(info.name, "running_var");
    for (double& v : values) v = variance ? std::exp(1.5 * d.normal()) : d.normal();
    fill(store.buffer(int(i)), values);
  }
}

// Weights by 1 / sigma as a training knows it: by a vector that is right, or by one iteration from a wrong one.
inline void settle_spectral_weights(ParameterStore& store, Workers& workers, bool right) {
  SpectralWeights spectral(store);
  const Tensor values = store.values().to(Device{});
  if (right) spectral.start(workers);
  std::copy_n(values.data<float>(), values.size(), store.values().data<float>());
  spectral.iterate(right);
}

inline void copy_numbers(ParameterStore& from, ParameterStore& to) {
  REQUIRE(from.flat_size() == to.flat_size());
  fill(to.values(), from.values().values());
  for (size_t i = 0; i < from.buffers().size(); i++) fill(to.buffer(int(i)), from.buffer(int(i)).values());
}

// J [out, in] of one sample, by as many copies of it as there are outputs.
inline Matrix jacobian(const Map& f, const Shape& one, const std::vector<double>& x, int64_t outputs) {
  std::vector<int64_t> dims = one.dims();
  dims[0] = outputs;
  std::vector<double> copies;
  for (int64_t i = 0; i < outputs; i++) copies.insert(copies.end(), x.begin(), x.end());
  Tensor in = Tensor::from(Shape(dims), copies, DType::f64);
  want_grad(in);
  Tape tape;
  Tensor y;
  {
    const TapeScope open(&tape);
    y = f(in);
  }
  std::vector<double> identity(size_t(outputs * outputs), 0.0);
  for (int64_t i = 0; i < outputs; i++) identity[size_t(i * outputs + i)] = 1;
  tape.backward(y, Tensor::from(y.shape(), identity, DType::f64));
  Matrix j(outputs, one.size());
  if (const Tensor g = grad_of(in)) j.values = g.values();
  return j;
}

// What was found of one case, as shares of what its bound allows.
struct Result {
  bool bounded = false;
  double l2 = 0, rms = 0, reach = 0;
};

// How hard is looked.
struct Effort {
  int starts, power_steps, ascents, reach_steps;
  int64_t largest_jacobian;
};
inline constexpr Effort quick{4, 5, 4, 3, 64}, thorough{6, 10, 20, 8, 128};

class Hunt {
 public:
  Hunt(const Subject& f32, const Subject& f64, const Mode& mode, double radius, const Effort& effort, Draw& d)
      : single_(f32), subject_(f64), mode_(mode), radius_(radius), effort_(effort), width_(f64.input[-1]) {
    std::vector<int64_t> dims = f64.input.dims();
    dims[0] = effort.starts;
    shape_ = Shape(dims);
    for (int k = 0; k < effort.starts; k++) {
      const double size = radius * (k == 0 ? 2 : std::pow(10.0, -d.real(0, 3))) / std::sqrt(double(width_));
      const double flat = d.chance(0.3) ? size : 0;
      for (int64_t i = 0; i < f64.input.size(); i++) starts_.push_back(size * d.normal() * (flat > 0 ? 1e-2 : 1) + flat);
    }
    clip_tokens(starts_, width_, radius * (1 - 1e-6));
    for (double& v : starts_) v = double(float(v));   // what both stores' maps can be given
    const Tensor y = run(starts_);
    out_width_ = y.dim(-1);
    outputs_ = y.size() / effort.starts;
    measure_noise(y.values());
  }

  // The largest stretch, as a share of `bound`. Beyond 1 + 1e-9 only what rounding can have made is allowed.
  double l2(Real bound) {
    double largest = 0;
    std::vector<double> best(starts_.begin(), starts_.begin() + subject_.input.size());
    const auto take = [&](double stretch, double rounding) {
      check_stretch(stretch, bound, rounding);
      largest = std::max(largest, stretch);
    };
    StretchSearch search = searching(false);
    const std::vector<double> found = search.from(Tensor::from(shape_, starts_, DType::f64), 7);
    for (const double stretch : found) take(stretch, noise_ / step());
    if (std::max(subject_.input.size(), outputs_) <= effort_.largest_jacobian) {
      const size_t k = size_t(std::max_element(found.begin(), found.end()) - found.begin());
      for (const std::vector<double>* points : std::initializer_list<const std::vector<double>*>{&starts_, &search.places()}) {
        const int64_t n = subject_.input.size();
        const Matrix j = jacobian(map(), subject_.input, {points->begin() + int64_t(k) * n, points->begin() + int64_t(k + 1) * n}, outputs_);
        take(largest_singular_value(j.values.data(), j.rows, j.columns), 0);
      }
    }
    return share(largest, bound);
  }
  double rms(Real bound) {
    double largest = 0;
    for (const double stretch : searching(true).from(Tensor::from(shape_, starts_, DType::f64), 7)) {
      check_stretch(stretch, bound, noise_ / step() / std::sqrt(double(out_width_)));
      largest = std::max(largest, stretch);
    }
    return share(largest, bound);
  }
  // The longest token that comes out: each token goes to the rim where the longest output's gradient points.
  double reach(Real bound) {
    std::vector<double> x = starts_;
    double longest = 0;
    for (int k = 0;; k++) {
      Tensor in = Tensor::from(shape_, x, DType::f64), y;
      want_grad(in);
      Tape tape;
      {
        const TapeScope open(&tape);
        y = map()(in);
      }
      std::vector<double> u = y.values();
      longest = std::max(longest, longest_token(u, out_width_));
      if (k == effort_.reach_steps) break;
      keep_longest_tokens(u);
      tape.backward(y, Tensor::from(y.shape(), u, DType::f64));
      const Tensor g = grad_of(in);
      if (!g) break;
      const std::vector<double> slope = g.values();
      for (size_t t = 0; t < x.size(); t += size_t(width_)) {
        const double l = length({slope.begin() + int64_t(t), slope.begin() + int64_t(t) + width_});
        for (size_t i = t; l > 0 && i < t + size_t(width_); i++) x[i] = radius_ * slope[i] / l;
      }
      clip(x);
    }
    CAPTURE(longest);
    CAPTURE(bound);
    CHECK(longest <= bound * (1 + 1e-9) + noise_);
    return share(longest, bound);
  }

 private:
  double step() const { return 1e-6 * radius_; }
  static double share(double found, Real bound) { return found == 0 ? 0 : double(found / bound); }
  Map map() const {
    return [this](const Tensor& x) { return subject_.map(x, mode_); };
  }
  Tensor run(const std::vector<double>& x) const { return map()(Tensor::from(shape_, x, DType::f64)); }
  void clip(std::vector<double>& x) const { clip_tokens(x, width_, radius_); }
  StretchSearch searching(bool rms) const {
    return StretchSearch(map(), [this](std::vector<double>& x) { clip(x); },
                         {.step = step(), .power_steps = effort_.power_steps, .ascents = effort_.ascents, .stride = 0.3 * radius_, .rms = rms});
  }
  void keep_longest_tokens(std::vector<double>& u) const {
    for (int64_t s = 0; s < effort_.starts; s++) {
      double* own = u.data() + s * outputs_;
      const auto length_at = [&](int64_t t) { return length({own + t, own + t + out_width_}); };
      int64_t longest = 0;
      for (int64_t t = 0; t < outputs_; t += out_width_)
        if (length_at(t) > length_at(longest)) longest = t;
      for (int64_t i = 0; i < outputs_; i++)
        if (i < longest || i >= longest + out_width_) own[i] = 0;
    }
  }
  // |error of f| in f64, l2 over a sample. Rounding errors are proportional to the unit roundoff, so those of the f32 map, which can be seen, are 2^29 times
  // as large. Sixteen times that, as errors differ from point to point. A difference quotient over 2 h is off by at most 2 noise / 2 h.
  void measure_noise(const std::vector<double>& exact) {
    const std::vector<double> y = single_.map(Tensor::from(shape_, starts_, DType::f32), mode_).values();
    REQUIRE(y.size() == exact.size());
    for (int64_t s = 0; s < effort_.starts; s++) {
      double squares = 0;
      for (int64_t i = s * outputs_; i < (s + 1) * outputs_; i++) squares += (y[size_t(i)] - exact[size_t(i)]) * (y[size_t(i)] - exact[size_t(i)]);
      noise_ = std::max(noise_, 16 * 0x1p-29 * std::sqrt(squares));
    }
  }
  static void check_stretch(double stretch, Real bound, double rounding) {
    CAPTURE(stretch);
    CAPTURE(bound);
    CAPTURE(rounding);
    CHECK(stretch <= bound * (1 + 1e-9) + rounding);
  }

  const Subject &single_, &subject_;
  Mode mode_;
  double radius_;
  Effort effort_;
  int64_t width_, out_width_ = 0, outputs_ = 0;
  Shape shape_;
  std::vector<double> starts_;
  double noise_ = 0;
};

inline Result hold(const Kind& kind, int64_t number) {
  const std::string name = kind.name;
  INFO("case " << number << ": " << name);
  Draw for_f32(name, number), for_f64(name, number), d("numbers", number);
  const Subject f32 = kind.build(for_f32), f64 = kind.build(for_f64);
  f32.store->finalize(DType::f32, 0, 1);
  f64.store->finalize(DType::f64, 0, 1);
  Workers workers(1);
  draw_numbers(*f32.store, d);
  settle_spectral_weights(*f32.store, workers, d.chance(0.7));
  copy_numbers(*f32.store, *f64.store);
  SpectralNorms estimates(*f32.store);
  estimates.iterate(workers, d.one_of({1, 5, 60}));
  CertifiedNorms norms(*f32.store);
  norms.measure(workers, estimates);

  const bool anywhere = d.chance(0.15);
  const double radius = d.magnitude(1e-2, 1e2);
  Mode mode;
  mode.temperature = d.chance(0.2) ? d.magnitude(0.1, 10) : 1;
  BoundTrace trace{norms, {}, mode.temperature};
  const Bound bound = f32.bound(f32.domain(anywhere ? INFINITY : radius), trace);
  CHECK((bound.kind == BoundKind::certified || bound.kind == BoundKind::unbounded));
  CHECK(!std::isnan(bound.lipschitz));
  CHECK(!std::isnan(bound.rms));
  CHECK(!std::isnan(bound.out.radius));
  Hunt hunt(f32, f64, mode, radius, number % 10 == 0 ? thorough : quick, d);
  Result result{.bounded = bound.bounded()};
  if (std::isfinite(bound.out.radius)) result.reach = hunt.reach(bound.out.radius);
  if (!bound.bounded()) {
    CHECK(!bound.blame.empty());
    return result;
  }
  CHECK(std::isfinite(bound.lipschitz));
  result.l2 = hunt.l2(bound.lipschitz);
  if (std::isfinite(bound.rms)) result.rms = hunt.rms(bound.rms);
  return result;
}

// LIPSGRAD_SOUNDNESS: so many cases, or the cases FIRST-LAST; else `usual`.
struct Range {
  int64_t first, last;
  bool asked;
};
inline Range asked_for(int64_t usual) {
  const char* text = std::getenv("LIPSGRAD_SOUNDNESS");
  long long first = 0, last = 0;
  if (!text) return {0, usual - 1, false};
  if (std::sscanf(text, "%lld-%lld", &first, &last) == 2) return {first, last, true};
  REQUIRE(std::sscanf(text, "%lld", &last) == 1);
  return {0, last - 1, true};
}

// The cases of these kinds, one after another; with LIPSGRAD_SOUNDNESS a table of what was found.
inline void hold_all(const std::vector<Kind>& kinds, int64_t usual) {
  omp_set_num_threads(1);
  const Range range = asked_for(usual);
  std::vector<std::vector<Result>> results(kinds.size());
  for (int64_t i = range.first; i <= range.last; i++) {
    const size_t k = size_t(i) % kinds.size();
    results[k].push_back(hold(kinds[k], i));
  }
  if (!range.asked) return;
  std::printf("%-28s %6s %9s %10s %10s %10s %10s %10s\n", "kind", "cases", "unbounded", "worst l2", "median l2", "worst rms", "median rms", "worst reach");
  Result worst;
  for (size_t k = 0; k < kinds.size(); k++) {
    std::vector<double> l2, rms, reach;
    for (const Result& r : results[k]) {
      reach.push_back(r.reach);
      if (r.bounded) l2.push_back(r.l2), rms.push_back(r.rms);
    }
    for (std::vector<double>* all : {&l2, &rms, &reach}) std::sort(all->begin(), all->end());
    const auto last = [](const std::vector<double>& all) { return all.empty() ? 0 : all.back(); };
    const auto middle = [](const std::vector<double>& all) { return all.empty() ? 0 : all[all.size() / 2]; };
    std::printf("%-28s %6zu %9zu %10.7f %10.2g %10.7f %10.2g %10.7f\n", kinds[k].name, results[k].size(), results[k].size() - l2.size(), last(l2), middle(l2),
                last(rms), middle(rms), last(reach));
    worst.l2 = std::max(worst.l2, last(l2)), worst.rms = std::max(worst.rms, last(rms)), worst.reach = std::max(worst.reach, last(reach));
  }
  std::printf("%-28s %6lld %9s %10.7f %10s %10.7f %10s %10.7f\n", "all", static_cast<long long>(range.last - range.first + 1), "", worst.l2, "", worst.rms, "",
              worst.reach);
}

}  // namespace soundness
