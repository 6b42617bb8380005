// depthwise_conv and depthwise_conv_gelu: against plain loops and differences, between types, devices, thread counts.
#include <doctest/doctest.h>
#include <omp.h>

#include "engine/kernel.h"
#include "engine/math.h"
#include "engine/ops.h"
#include "engine/profile.h"
#include "schedules.h"

namespace {

constexpr Device cpu{Device::cpu}, cuda{Device::cuda};

struct Case {
  int64_t batch, height, width, channels, kernel;
  bool gelu, with_bias = true;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  out << c.batch << 'x' << c.height << 'x' << c.width << 'x' << c.channels;
  return out << " kernel " << c.kernel << (c.gelu ? " gelu" : "");
}

using Numbers = std::vector<double>;

Numbers draw(int64_t n, const char* stream, double scale) {
  RandomSequence sequence(RandomStream(3, stream), 0, 0);
  Numbers values(n);
  for (double& v : values) v = scale * sequence.normal();
  return values;
}

// Rounded to bf16, so that every dtype starts from the same numbers.
Numbers rounded(Numbers values) {
  for (double& v : values) v = float(bf16(float(v)));
  return values;
}

struct Inputs {
  Numbers x, weight, bias, dy;
  explicit Inputs(const Case& c)
      : x(rounded(draw(c.batch * c.height * c.width * c.channels, "x", 1))),
        weight(rounded(draw(c.channels * c.kernel * c.kernel, "weight", 0.3))),
        bias(c.with_bias ? rounded(draw(c.channels, "bias", 0.5)) : Numbers()),
        dy(rounded(draw(c.batch * c.height * c.width * c.channels, "dy", 1))) {}
};

struct Results {
  Numbers y, dx, dweight, dbias;
};

Tensor apply(const Case& c, const Tensor& x, const Tensor& weight, const Tensor& bias) {
  return c.gelu ? depthwise_conv_gelu(x, weight, bias) : depthwise_conv(x, weight, bias);
}

void ask_for_gradient(Tensor& parameter, DType dtype) {
  want_grad(parameter);
  parameter.slot()->dtype = dtype;
}

// Runs the op forward and back; gradients of weight and bias are f32, as a parameter's, or f64. `times` runs add up.
Results run(const Case& c, const Inputs& in, DType dtype, Device device, int times = 1) {
  const Shape map{c.batch, c.height, c.width, c.channels};
  const DType gradient = dtype == DType::f64 ? DType::f64 : DType::f32;
  Tensor x = Tensor::from(map, in.x, dtype, device);
  Tensor weight = Tensor::from({c.channels, 1, c.kernel, c.kernel}, in.weight, dtype, device);
  Tensor bias = c.with_bias ? Tensor::from({c.channels}, in.bias, dtype, device) : Tensor();
  want_grad(x);
  ask_for_gradient(weight, gradient);
  if (bias) ask_for_gradient(bias, gradient);
  Tensor y;
  for (int i = 0; i < times; i++) {
    Tape tape;
    {
      const TapeScope open(&tape);
      y = apply(c, x, weight, bias);
    }
    tape.backward(y, Tensor::from(map, in.dy, dtype, device));
  }
  return {y.values(), grad_of(x).values(), grad_of(weight).values(), bias ? grad_of(bias).values() : Numbers()};
}

// The definition, term by term.
Results plain_loops(const Case& c, const Inputs& in) {
  const int64_t pad = c.kernel / 2;
  Results r{Numbers(in.x.size()), Numbers(in.x.size()), Numbers(in.weight.size()), Numbers(in.bias.size())};
  const auto at = [&](int64_t b, int64_t h, int64_t w, int64_t k) {
    return ((b * c.height + h) * c.width + w) * c.channels + k;
  };
  const auto each_term = [&](int64_t h, int64_t w, const auto& f) {
    for (int64_t i = 0; i < c.kernel; i++)
      for (int64_t j = 0; j < c.kernel; j++) {
        const int64_t row = h + i - pad, column = w + j - pad;
        if (row >= 0 && row < c.height && column >= 0 && column < c.width) f(row, column, i * c.kernel + j);
      }
  };
  for (int64_t b = 0; b < c.batch; b++)
    for (int64_t h = 0; h < c.height; h++)
      for (int64_t w = 0; w < c.width; w++)
        for (int64_t k = 0; k < c.channels; k++) {
          const double* taps = in.weight.data() + k * c.kernel * c.kernel;
          double* dtaps = r.dweight.data() + k * c.kernel * c.kernel;
          double pre = c.with_bias ? in.bias[k] : 0;
          each_term(h, w, [&](int64_t row, int64_t column, int64_t tap) {
            pre += taps[tap] * in.x[at(b, row, column, k)];
          });
          r.y[at(b, h, w, k)] = c.gelu ? gelu_value(pre) : pre;
          const double dpre = in.dy[at(b, h, w, k)] * (c.gelu ? gelu_slope(pre) : 1);
          if (c.with_bias) r.dbias[k] += dpre;
          each_term(h, w, [&](int64_t row, int64_t column, int64_t tap) {
            r.dx[at(b, row, column, k)] += dpre * taps[tap];
            dtaps[tap] += dpre * in.x[at(b, row, column, k)];
          });
        }
  return r;
}

// The largest difference, as a share of the largest number.
double difference(const Numbers& a, const Numbers& b) {
  REQUIRE(a.size() == b.size());
  double most = 0, size = 1e-30;
  for (size_t i = 0; i < a.size(); i++) {
    if (!std::isfinite(a[i])) return INFINITY;
    most = std::max(most, std::abs(a[i] - b[i]));
    size = std::max(size, std::abs(b[i]));
  }
  return most / size;
}

void check_close(const Results& a, const Results& b, double tolerance) {
  CHECK(difference(a.y, b.y) < tolerance);
  CHECK(difference(a.dx, b.dx) < tolerance);
  CHECK(difference(a.dweight, b.dweight) < tolerance);
  CHECK(difference(a.dbias, b.dbias) < tolerance);
}

void check_equal(const Results& a, const Results& b) {
  CHECK(a.y == b.y);
  CHECK(a.dx == b.dx);
  CHECK(a.dweight == b.dweight);
  CHECK(a.dbias == b.dbias);
}

// Every kind of remainder: of spans along W, of channel blocks, of maps smaller than the kernel.
const std::vector<Case> cases = {
    {1, 1, 1, 1, 3, false}, {2, 5, 7, 9, 7, false},  {1, 7, 5, 1, 7, true},  {2, 9, 9, 5, 3, true},
    {1, 1, 9, 7, 7, true},  {2, 9, 1, 17, 3, true},  {1, 5, 15, 16, 5, true}, {3, 4, 8, 33, 7, true},
    {1, 6, 6, 8, 1, false}, {1, 3, 10, 24, 9, true, false}, {1, 14, 15, 40, 7, true}, {6, 7, 7, 3, 7, false},
};

}  // namespace

TEST_CASE("depthwise_conv: equals plain loops in f64 on both devices") {
  for (const Case& c : cases) {
    CAPTURE(c);
    const Inputs in(c);
    const Results expected = plain_loops(c, in);
    check_close(run(c, in, DType::f64, cpu), expected, 1e-12);
    check_close(run(c, in, DType::f64, cuda), expected, 1e-12);
  }
}

TEST_CASE("depthwise_conv_gelu: gradients equal finite differences") {
  for (const int64_t kernel : {3, 7})
    for (const bool gelu : {false, true})
      for (const int64_t height : {1, 5})
        for (const int64_t width : {7, 9}) {
          const Case c{2, height, width, 5, kernel, gelu};
          CAPTURE(c);
          Inputs in(c);
          const Results r = run(c, in, DType::f64, cpu);
          const auto loss = [&] {
            const Tensor weight = Tensor::from({c.channels, 1, c.kernel, c.kernel}, in.weight, DType::f64);
            const Tensor x = Tensor::from({c.batch, c.height, c.width, c.channels}, in.x, DType::f64);
            const Numbers y = apply(c, x, weight, Tensor::from({c.channels}, in.bias, DType::f64)).values();
            double sum = 0;
            for (size_t i = 0; i < y.size(); i++) sum += y[i] * in.dy[i];
            return sum;
          };
          const auto differences = [&](Numbers& values) {
            Numbers slopes;
            for (double& v : values) {
              const double here = v, step = 1e-5;
              v = here + step;
              const double above = loss();
              v = here - step;
              slopes.push_back((above - loss()) / (2 * step));
              v = here;
            }
            return slopes;
          };
          CHECK(difference(r.dx, differences(in.x)) < 1e-7);
          CHECK(difference(r.dweight, differences(in.weight)) < 1e-7);
          CHECK(difference(r.dbias, differences(in.bias)) < 1e-7);
        }
}

TEST_CASE("depthwise_conv_gelu: f32 and bf16 stay near f64") {
  for (const Case& c : cases) {
    CAPTURE(c);
    const Inputs in(c);
    const Results expected = run(c, in, DType::f64, cpu);
    check_close(run(c, in, DType::f32, cpu), expected, 2e-6);
    check_close(run(c, in, DType::bf16, cpu), expected, 1e-2);
  }
}

TEST_CASE("depthwise_conv_gelu: the kernels equal the CPU in every schedule of the fibers") {
  for (const Case& c : cases) {
    CAPTURE(c);
    const Inputs in(c);
    const Results f32 = run(c, in, DType::f32, cpu), half = run(c, in, DType::bf16, cpu);
    for (const unsigned schedule : schedules) {
      fibers::schedule = schedule;
      check_close(run(c, in, DType::f32, cuda), f32, 2e-6);
      check_close(run(c, in, DType::bf16, cuda), half, 1e-2);
    }
    fibers::schedule = 0;
  }
}

TEST_CASE("depthwise_conv_gelu: a real size, the same bits whatever the number of threads") {
  const Case c{3, 14, 14, 40, 7, true};
  const Inputs in(c);
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const Results one = run(c, in, DType::f32, cpu);
  for (const int n : {2, 3}) {
    omp_set_num_threads(n);
    check_equal(run(c, in, DType::f32, cpu), one);
  }
  omp_set_num_threads(threads);
  check_close(one, plain_loops(c, in), 2e-6);
}

TEST_CASE("depthwise_conv_gelu: gradients add to what is already there") {
  for (const Device device : {cpu, cuda}) {
    const Case c{2, 7, 7, 20, 7, true};
    const Inputs in(c);
    const Results once = run(c, in, DType::f32, device), twice = run(c, in, DType::f32, device, 2);
    const auto doubled = [](Numbers values) {
      for (double& v : values) v *= 2;
      return values;
    };
    check_equal(twice, {once.y, doubled(once.dx), doubled(once.dweight), doubled(once.dbias)});
  }
}

TEST_CASE("depthwise_conv: touches only what is asked for") {
  const Case c{1, 5, 5, 3, 3, false};
  const Inputs in(c);
  Tensor x = Tensor::from({1, 5, 5, 3}, in.x, DType::f64), bias = Tensor::from({3}, in.bias, DType::f64);
  Tensor weight = Tensor::from({3, 1, 3, 3}, in.weight, DType::f64);
  const Results all = run(c, in, DType::f64, cpu);
  const auto macs = [&](std::initializer_list<Tensor*> wanted) {
    for (Tensor* t : {&x, &weight, &bias}) t->set_slot(nullptr);
    for (Tensor* t : wanted) want_grad(*t);
    Profile profile;
    Tape tape;
    Tensor y;
    {
      const TapeScope open(&tape);
      y = depthwise_conv(x, weight, bias);
    }
    if (wanted.size()) tape.backward(y, Tensor::from(y.shape(), in.dy, DType::f64));
    return profile.macs() / (1 * 5 * 5 * 3 * 9);
  };
  CHECK(macs({}) == 1);
  CHECK(macs({&x}) == 2);
  CHECK(grad_of(x).values() == all.dx);
  CHECK(macs({&bias}) == 2);
  CHECK(grad_of(bias).values() == all.dbias);
  CHECK(macs({&x, &weight, &bias}) == 3);
  CHECK(grad_of(weight).values() == all.dweight);
}

TEST_CASE("depthwise_conv: writes within bounds and reads nothing that was not written") {
  memory_debug() = {.poison = true, .guard = true};
  const size_t before = guard_violations();
  for (const Case& c : cases) {
    CAPTURE(c);
    const Inputs in(c);
    const Results expected = plain_loops(c, in);
    for (const Device device : {cpu, cuda}) check_close(run(c, in, DType::f32, device), expected, 2e-6);
  }
  memory_debug() = {};
  CHECK(guard_violations() == before);
}

TEST_CASE("depthwise_conv: shapes that do not fit are refused by name") {
  const auto zeros = [](const Shape& shape) { return Tensor::zeros(shape, DType::f32); };
  const Tensor x = zeros({1, 5, 5, 3});
  const doctest::Contains named("[depthwise_conv] x is [1, 5, 5, 3]"), bias_form("bias must be [C]");
  CHECK_THROWS_WITH_AS(depthwise_conv(x, zeros({4, 1, 3, 3}), {}), named, Error);
  CHECK_THROWS_WITH_AS(depthwise_conv(x, zeros({3, 1, 4, 4}), {}), doctest::Contains("odd"), Error);
  CHECK_THROWS_WITH_AS(depthwise_conv_gelu(x, zeros({3, 1, 3, 3}), zeros({4})), bias_form, Error);
  CHECK_THROWS_AS(depthwise_conv(zeros({5, 5, 3}), zeros({3, 1, 3, 3}), {}), Error);
}
