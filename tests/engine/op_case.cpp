// op_case.cpp: runs a case in every way that must not matter, and compares.
#include "op_case.h"

#include <omp.h>

#include <cmath>
#include <cstring>

#include "engine/fibers.h"
#include "engine/profile.h"
#include "schedules.h"

namespace {

using Numbers = std::vector<double>;
constexpr Device cpu{Device::cpu}, cuda{Device::cuda};

#ifdef __SANITIZE_THREAD__
constexpr int many_threads = 1;   // the system's OpenMP is not instrumented: its joins would be reported as races
#else
constexpr int many_threads = 2;
#endif

Values each(std::function<double(RandomSequence&)> draw) {
  return [draw](const Shape& shape, RandomSequence& random) {
    Numbers out(shape.size());
    for (double& v : out) v = draw(random);
    return out;
  };
}

// How to run a case once.
struct Way {
  DType dtype = DType::f64;
  Device device = cpu;
  int only_input = -1;      // the one input that wants a gradient; -1: all
  int only_output = -1;     // the one output that a gradient comes from; -1: all
  double filled = 0;        // what stands in the gradients before the run; 0: nothing does
};

struct Result {
  std::vector<Numbers> outputs, gradients;   // an input without a gradient has an empty one
  std::vector<Shape> shapes;                 // of the outputs
  std::vector<DType> dtypes;                 // of the outputs
};

DType stored(const Input& input, DType dtype) {
  return input.role == Role::wide_weight && dtype == DType::bf16 ? DType::f32 : dtype;
}

// What is left of numbers that were stored once.
Numbers rounded(const Numbers& values, DType dtype) {
  Numbers out = values;
  dispatch(dtype, [&]<class T>() { for (double& v : out) v = Compute<T>(T(v)); });
  return out;
}

std::vector<Numbers> draw_inputs(const OpCase& c, DType rounding) {
  std::vector<Numbers> out;
  for (size_t i = 0; i < c.inputs.size(); i++) {
    RandomSequence random(RandomStream(1, c.name), 0, i);
    out.push_back(rounded(c.inputs[i].values(c.inputs[i].shape, random), stored(c.inputs[i], rounding)));
  }
  return out;
}

Numbers upstream(const OpCase& c, size_t output, const Shape& shape, DType rounding) {
  RandomSequence random(RandomStream(2, c.name), 0, output);
  return rounded(normal()(shape, random), rounding);
}

Inputs make_inputs(const OpCase& c, const std::vector<Numbers>& values, const Way& way) {
  Inputs in;
  for (size_t i = 0; i < c.inputs.size(); i++) {
    const Input& input = c.inputs[i];
    in.push_back(Tensor::from(input.shape, values[i], stored(input, way.dtype)).to(way.device));
    if (input.role == Role::fixed || (way.only_input >= 0 && way.only_input != int(i))) continue;
    want_grad(in[i]);
    if (input.role == Role::weight && way.dtype == DType::bf16) in[i].slot()->dtype = DType::f32;
    if (way.filled == 0) continue;
    const Tensor grad = into(in[i]).grad;
    std::memcpy(grad.raw(), Tensor::full(grad.shape(), way.filled, grad.dtype()).raw(), grad.bytes());
  }
  return in;
}

void check_untouched(const OpCase& c, const std::vector<Numbers>& values, const Inputs& in) {
  for (size_t i = 0; i < in.size(); i++) CHECK_MESSAGE(in[i].to(cpu).values() == values[i], c.name, ": wrote to its input ", i);
}

// Starts the gradients of the outputs and walks back from them.
void walk_back(const OpCase& c, Tape& tape, const std::vector<Tensor>& outputs, const Way& way, DType rounding) {
  std::vector<std::pair<Tensor, Tensor>> seeds;
  for (size_t k = 0; k < outputs.size(); k++) {
    const Tensor& y = outputs[k];
    if (!y || !y.wants_grad() || (way.only_output >= 0 && way.only_output != int(k))) continue;
    seeds.push_back({y, Tensor::from(y.shape(), upstream(c, k, y.shape(), rounding), y.dtype()).to(way.device)});
  }
  REQUIRE_MESSAGE(!seeds.empty(), c.name, ": no output wants a gradient");
  for (size_t k = 1; k < seeds.size(); k++) std::memcpy(into(seeds[k].first).grad.raw(), seeds[k].second.raw(), seeds[k].second.bytes());
  tape.backward(seeds[0].first, seeds[0].second);
}

Result run(const OpCase& c, const OpFunction& op, const std::vector<Numbers>& values, const Way& way, DType rounding) {
  Inputs in = make_inputs(c, values, way);
  Result result;
  Tape tape;
  {
    const TapeScope open(&tape);
    const Outputs outputs = op(in);
    for (const Tensor& y : outputs.all) {
      result.outputs.push_back(y ? y.to(cpu).values() : Numbers());
      result.shapes.push_back(y ? y.shape() : Shape());
      result.dtypes.push_back(y ? y.dtype() : way.dtype);
    }
    walk_back(c, tape, outputs.all, way, rounding);
  }
  for (const Tensor& x : in) {
    const Tensor grad = grad_of(x);
    result.gradients.push_back(grad ? grad.to(cpu).values() : Numbers());
  }
  check_untouched(c, values, in);
  return result;
}

Result run(const OpCase& c, const std::vector<Numbers>& values, const Way& way, DType rounding) {
  return run(c, c.op, values, way, rounding);
}

std::map<std::string, OpCost> counts_of(const OpCase& c, const std::vector<Numbers>& values, const Way& way) {
  Profile profile;
  run(c, values, way, way.dtype);
  return profile.table;
}

// Forward moves more than what comes out, backward something; and a dry run counts what the kernels do.
void check_counts(const OpCase& c, const std::vector<Numbers>& values, const Result& result) {
  auto dry = [&] { const DryRun nothing_runs; return counts_of(c, values, {}); }();
  int64_t forward = 0, outputs = 0;
  for (const auto& [op, cost] : dry) {
    if (!op.ends_with(" backward")) forward += cost.bytes;
    CHECK_MESSAGE(cost.bytes > 0, c.name, ": ", op, " counts no bytes");
  }
  for (size_t k = 0; k < result.outputs.size(); k++) outputs += int64_t(result.outputs[k].size() * size_of(result.dtypes[k]));
  CHECK_MESSAGE(forward > outputs, c.name, ": forward counts ", forward, " bytes, its outputs have ", outputs);
  if (!c.kernels) return;
  for (const auto& [op, cost] : counts_of(c, values, {.device = cuda}))
    CHECK_MESSAGE((dry[op].bytes == cost.bytes && dry[op].kernels == cost.kernels && dry[op].macs == cost.macs), c.name, ": a dry run of ", op, " counts ",
                  dry[op].bytes, " bytes, ", dry[op].kernels, " kernels, ", dry[op].macs, " products; a run ", cost.bytes, ", ", cost.kernels, ", ", cost.macs);
}

Tolerance tolerance_of(const OpCase& c, DType run, DType output) {
  if (run == DType::bf16) return c.b16;
  return run == DType::f32 || output == DType::f32 ? c.f32 : c.f64;
}

void check_same(const std::string& how, const OpCase& c, const Result& wanted, const Result& given, DType dtype) {
  for (size_t k = 0; k < wanted.outputs.size(); k++)
    check_close(str(c.name, ", ", how, ", output ", k), wanted.outputs[k], given.outputs[k],
                tolerance_of(c, dtype, given.dtypes[k]), wanted.shapes[k]);
  for (size_t i = 0; i < wanted.gradients.size(); i++)
    check_close(str(c.name, ", ", how, ", gradient of input ", i), wanted.gradients[i], given.gradients[i],
                tolerance_of(c, dtype, dtype), c.inputs[i].shape);
}

// sum over outputs of dy * (y(x + step direction) - y(x)), differences first: what did not move cancels exactly.
struct Differences {
  const OpCase& c;
  std::vector<Numbers> values, base, dys;

  Differences(const OpCase& c, const std::vector<Numbers>& values, int only_output) : c(c), values(values), base(forward(values)) {
    const TapeScope silent(nullptr);
    Inputs in = make_inputs(c, values, {});
    Tape tape;
    const TapeScope open(&tape);
    const Outputs outputs = c.op(in);
    for (size_t k = 0; k < outputs.all.size(); k++) {
      const Tensor& y = outputs.all[k];
      const bool counts = y && y.wants_grad() && (only_output < 0 || only_output == int(k));
      dys.push_back(counts ? upstream(c, k, y.shape(), DType::f64) : Numbers(y ? y.size() : 0, 0.0));
    }
  }
  std::vector<Numbers> forward(const std::vector<Numbers>& at) const {
    Inputs in;
    for (size_t i = 0; i < at.size(); i++) in.push_back(Tensor::from(c.inputs[i].shape, at[i], DType::f64));
    std::vector<Numbers> out;
    for (const Tensor& y : c.op(in).all) out.push_back(y ? y.values() : Numbers());
    return out;
  }
  double operator()(size_t input, const Numbers& direction, double step) {
    const Numbers kept = values[input];
    for (size_t i = 0; i < kept.size(); i++) values[input][i] += step * direction[i];
    const std::vector<Numbers> moved = forward(values);
    values[input] = kept;
    double sum = 0;
    for (size_t k = 0; k < moved.size(); k++)
      for (size_t i = 0; i < moved[k].size(); i++)
        if (dys[k][i] != 0) sum += dys[k][i] * (moved[k][i] - base[k][i]);
    return sum / step;
  }
};

void check_gradient(const OpCase& c, const std::vector<Numbers>& values, int only_output) {
  constexpr double step = 1e-5, kink = 1e-3;
  const Result exact = run(c, values, {.only_output = only_output}, DType::f64);
  Differences difference(c, values, only_output);
  int64_t looked_at = 0, skipped = 0;
  for (size_t i = 0; i < c.inputs.size(); i++) {
    const Numbers& gradient = exact.gradients[i];
    if (c.inputs[i].role == Role::fixed || (gradient.empty() && only_output >= 0)) continue;
    REQUIRE_MESSAGE(!gradient.empty(), c.name, ": input ", i, " got no gradient");
    const int64_t n = gradient.size();
    double largest = 1e-3;
    for (const double g : gradient) largest = std::max(largest, std::abs(g));

    // Single elements, spread evenly over the input.
    Numbers direction(n, 0.0);
    for (int64_t s = 0, count = std::min<int64_t>(n, c.samples); s < count; s++) {
      const int64_t e = s * n / count;
      direction[e] = 1;
      const double right = difference(i, direction, step), left = difference(i, direction, -step);
      direction[e] = 0;
      looked_at++;
      if (std::abs(right - left) > kink * largest) {
        skipped++;
        continue;
      }
      const double numeric = (right + left) / 2;
      CHECK_MESSAGE(std::abs(numeric - gradient[e]) <= c.gradient * largest, c.name, ": gradient of input ", i, " at ", e, " is ",
                    gradient[e], ", differences say ", numeric, " (output ", only_output, ")");
    }
    // All elements at once, along a random direction.
    RandomSequence random(RandomStream(3, c.name), 0, i);
    double along = 0, length = 0;
    for (int64_t e = 0; e < n; e++) {
      direction[e] = random.normal();
      along += direction[e] * gradient[e];
      length += gradient[e] * gradient[e];
    }
    const double right = difference(i, direction, step), left = difference(i, direction, -step);
    if (std::abs(right - left) > 100 * kink * std::max(1.0, std::sqrt(length))) continue;
    CHECK_MESSAGE(std::abs((right + left) / 2 - along) <= 10 * c.gradient * std::max(largest, std::sqrt(length)), c.name,
                  ": gradient of input ", i, " along a random direction is ", along, ", differences say ", (right + left) / 2);
  }
  CHECK_MESSAGE(skipped * 100 <= looked_at, c.name, ": ", skipped, " of ", looked_at, " elements lie at kinks");
}

void check_gradients(const OpCase& c, const std::vector<Numbers>& values, const Result& plain) {
  check_gradient(c, values, -1);
  for (size_t k = c.first_alone ? 0 : 1; k < plain.outputs.size() && plain.outputs.size() > 1; k++) {
    Differences probe(c, values, int(k));
    double reached = 0;
    for (const Numbers& dy : probe.dys) for (const double g : dy) reached += std::abs(g);
    if (reached > 0) check_gradient(c, values, int(k));
  }
  const Result added = run(c, values, {.filled = 0.75}, DType::f64);
  for (size_t i = 0; i < c.inputs.size(); i++) {
    if (c.inputs[i].role == Role::fixed) continue;
    Numbers wanted = plain.gradients[i];
    for (double& g : wanted) g += 0.75;
    check_close(str(c.name, ", gradient of input ", i, " on top of another"), wanted, added.gradients[i], c.f64, c.inputs[i].shape);

    const Result alone = run(c, values, {.only_input = int(i)}, DType::f64);
    check_close(str(c.name, ", gradient of input ", i, " alone"), plain.gradients[i], alone.gradients[i], c.f64, c.inputs[i].shape);
    for (size_t j = 0; j < c.inputs.size(); j++)
      CHECK_MESSAGE((j == i || alone.gradients[j].empty()), c.name, ": input ", j, " got a gradient it did not want");
  }
}

void check_threads(const OpCase& c, const std::vector<Numbers>& values, DType dtype, const Result& one) {
  if (!c.threads) return;
  const Threads threads(many_threads);
  const Result many = run(c, values, {.dtype = dtype}, dtype);
  CHECK_MESSAGE(one.outputs == many.outputs, c.name, ": outputs in ", str(dtype), " depend on the number of threads");
  CHECK_MESSAGE(one.gradients == many.gradients, c.name, ": gradients in ", str(dtype), " depend on the number of threads");
}

void check_kernels(const OpCase& c, const std::vector<Numbers>& values, DType dtype, const Result& wanted) {
  if (!c.kernels) return;
  for (const unsigned schedule : schedules) {
    fibers::schedule = schedule;
    check_same(str("kernels in ", dtype, ", schedule ", schedule), c, wanted, run(c, values, {.dtype = dtype, .device = cuda}, dtype), dtype);
  }
  fibers::schedule = 0;
}

void check_dtype(const OpCase& c, DType dtype) {
  const std::vector<Numbers> values = draw_inputs(c, dtype);
  const Result narrow = run(c, values, {.dtype = dtype}, dtype);
  const Result exact = run(c, values, {}, dtype);
  check_same(str(dtype, " against f64"), c, exact, narrow, dtype);
  if (dtype == DType::bf16) {
    const Result added = run(c, values, {.dtype = dtype, .filled = 0.75}, dtype);
    for (size_t i = 0; i < c.inputs.size(); i++) {
      Numbers wanted = exact.gradients[i];
      for (double& g : wanted) g += 0.75;
      check_close(str(c.name, ", bf16 gradient of input ", i, " on top of another"), wanted, added.gradients[i], c.b16, c.inputs[i].shape);
    }
  }
  check_threads(c, values, dtype, narrow);
  check_kernels(c, values, dtype, narrow);
}

std::string place(int64_t index, const Shape& shape) {
  if (shape.rank() == 0) return str('[', index, ']');
  std::string out;
  for (int d = shape.rank() - 1; d >= 0; d--) {
    out = str(index % shape[d], out.empty() ? "" : ", ", out);
    index /= shape[d];
  }
  return '[' + out + ']';
}

}  // namespace

Values normal(double deviation, double mean) {
  return each([=](RandomSequence& random) { return mean + deviation * random.normal(); });
}
Values uniform(double low, double high) {
  return each([=](RandomSequence& random) { return random.uniform(low, high); });
}
Values constant(double value) {
  return each([=](RandomSequence&) { return value; });
}
Values away_from(double kink, double distance, Values values) {
  return [=](const Shape& shape, RandomSequence& random) {
    Numbers out = values(shape, random);
    for (double& v : out)
      if (std::abs(v - kink) < distance) v = kink + (v < kink ? -distance : distance);
    return out;
  };
}
Values distribution() {
  return [](const Shape& shape, RandomSequence& random) {
    Numbers out = uniform(0.05, 1)(shape, random);
    const int64_t n = shape[-1];
    for (int64_t row = 0; row < shape.rows(); row++) {
      double sum = 0;
      for (int64_t i = 0; i < n; i++) sum += out[row * n + i];
      for (int64_t i = 0; i < n; i++) out[row * n + i] /= sum;
    }
    return out;
  };
}

void check_close(const std::string& what, const Numbers& wanted, const Numbers& given, Tolerance tolerance, const Shape& shape) {
  REQUIRE_MESSAGE(wanted.size() == given.size(), what, ": ", given.size(), " numbers instead of ", wanted.size());
  constexpr double smallest = 1e-3;   // numbers near 0 are compared with this instead of themselves
  double largest = smallest, squares = smallest * smallest * wanted.size(), errors = 0, worst = 0;
  for (const double v : wanted) {
    largest = std::max(largest, std::abs(v));
    squares += v * v;
  }
  int64_t first_bad = -1, worst_at = 0;
  for (size_t i = 0; i < wanted.size(); i++) {
    const double error = std::isfinite(given[i]) ? std::abs(given[i] - wanted[i]) : INFINITY;
    errors += error * error;
    if (!(error <= worst)) worst = error, worst_at = i;
    if (!(error <= tolerance.max * largest) && first_bad < 0) first_bad = i;
  }
  const double nmse = wanted.empty() ? 0 : errors / squares;
  const bool good = nmse <= tolerance.nmse && first_bad < 0;
  if (good) {
    CHECK(good);
    return;
  }
  CHECK_MESSAGE(good, what, ": NMSE ", nmse, " (", tolerance.nmse, " allowed), largest error ", worst / largest, " (", tolerance.max,
                " allowed) at ", place(worst_at, shape), ": ", given[worst_at], " instead of ", wanted[worst_at],
                first_bad < 0 ? std::string() : str("; first bad at ", place(first_bad, shape), ": ", given[first_bad], " instead of ", wanted[first_bad]));
}

Threads::Threads(int count) : before_(omp_get_max_threads()) { omp_set_num_threads(count); }
Threads::~Threads() { omp_set_num_threads(before_); }

GuardedMemory::GuardedMemory() : before_(memory_debug()), violations_(guard_violations()) { memory_debug() = {.poison = true, .guard = true}; }
GuardedMemory::~GuardedMemory() {
  memory_debug() = before_;
  CHECK_MESSAGE(guard_violations() == violations_, "bytes behind an allocation were written");
}

void check_op(const OpCase& c) {
  INFO(c.name);
  const GuardedMemory guarded;
  const Threads one(1);
  const std::vector<Numbers> values = draw_inputs(c, DType::f64);
  const Result plain = run(c, values, {}, DType::f64);
  check_gradients(c, values, plain);
  if (c.twin) {
    const Result twin = run(c, c.twin, values, {}, DType::f64);
    const Tolerance tolerance{c.composed * c.composed, c.composed};
    for (size_t k = 0; k < plain.outputs.size(); k++)
      check_close(str(c.name, " against its twin, output ", k), twin.outputs[k], plain.outputs[k], tolerance, plain.shapes[k]);
    for (size_t i = 0; i < plain.gradients.size(); i++)
      check_close(str(c.name, " against its twin, gradient of input ", i), twin.gradients[i], plain.gradients[i], tolerance, c.inputs[i].shape);
  }
  check_kernels(c, values, DType::f64, plain);
  check_counts(c, values, plain);
  check_dtype(c, DType::f32);
  if (c.bf16) check_dtype(c, DType::bf16);
}
