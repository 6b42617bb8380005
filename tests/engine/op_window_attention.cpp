// window_attention: against plain loops, published numbers, finite differences, the other device, and itself with other threads.
#include <doctest/doctest.h>
#include <omp.h>

#include <cmath>

#include "attention_reference.h"
#include "engine/fibers.h"
#include "engine/ops.h"

namespace {

const Device fibers_device{Device::cuda, 0};

struct Input {
  WindowAttention config;
  Tensor qkv, table, dout;   // f64 on the CPU
};

Input input(Shape map, int dim, const WindowAttention& config, bool with_table = true) {
  RandomSequence draw(RandomStream(7, "window_attention"), 0, 0);
  const auto random = [&](const Shape& shape) {
    Tensor t = Tensor::empty(shape, DType::f64);
    for (int64_t i = 0; i < t.size(); i++) t.data<double>()[i] = draw.normal();
    return t;
  };
  const int side = 2 * config.window_height - 1, channels = config.heads * dim;
  Input in{config, random({map[0], map[1], map[2], 3 * channels}), {}, random({map[0], map[1], map[2], channels})};
  if (with_table) in.table = random({side * side, config.heads});
  return in;
}

struct Result {
  std::vector<double> out, entropy, dqkv, dtable;
};

// Runs the op forward and backward in another type, on another device. `again` runs it twice, so that gradients add up.
Result run(const Input& in, DType dtype = DType::f64, Device device = {}, bool again = false) {
  const auto moved = [&](const Tensor& x) { return x ? x.to(dtype).to(device) : Tensor(); };
  Tensor qkv = moved(in.qkv), table = moved(in.table);
  want_grad(qkv);
  if (table) want_grad(table);
  Tape tape;
  Attended y;
  for (int i = 0; i < 1 + again; i++) {
    {
      const TapeScope open(&tape);
      y = window_attention(qkv, table, in.config);
    }
    tape.backward(y.out, moved(in.dout));
  }
  return {y.out.values(), y.entropy.values(), grad_of(qkv).values(), table ? grad_of(table).values() : std::vector<double>()};
}

// The forward by plain loops.
Result twin(const Input& in) {
  const AttentionReference reference(part_of(in.qkv, 0), part_of(in.qkv, 1), part_of(in.qkv, 2), in.table, in.config);
  return {reference.out, reference.entropy, {}, {}};
}

// Largest difference, over the largest number.
double distance(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double largest = 1e-30, difference = 0;
  for (size_t i = 0; i < a.size(); i++) {
    if (!std::isfinite(a[i]) || !std::isfinite(b[i])) return INFINITY;
    largest = std::max(largest, std::abs(b[i]));
    difference = std::max(difference, std::abs(a[i] - b[i]));
  }
  return difference / largest;
}

void check_equal(const Result& a, const Result& b, double tolerance) {
  CHECK(distance(a.out, b.out) <= tolerance);
  CHECK(distance(a.entropy, b.entropy) <= std::max(tolerance, 1e-6));   // entropy is f32
  CHECK(distance(a.dqkv, b.dqkv) <= tolerance);
  CHECK(distance(a.dtable, b.dtable) <= tolerance);
}

std::vector<Input> cases() {
  const Similarity dot = Similarity::dot, cosine = Similarity::cosine, bounded = Similarity::cosine_bounded;
  std::vector<Input> all;
  all.push_back(input({2, 4, 4}, 3, {.heads = 2, .window_height = 2, .window_width = 2, .similarity = dot}));
  all.push_back(input({1, 4, 6}, 8, {.heads = 1, .window_height = 2, .window_width = 2, .shift = 1, .similarity = dot}));
  all.push_back(input({1, 6, 9}, 3, {.heads = 2, .window_height = 3, .window_width = 3, .shift = 2, .similarity = cosine, .tau = 4}));
  all.push_back(input({2, 3, 3}, 8, {.heads = 2, .window_height = 3, .window_width = 3, .similarity = cosine, .tau = 4}));
  all.push_back(input({1, 6, 6}, 3, {.heads = 1, .window_height = 3, .window_width = 3, .shift = 1, .similarity = bounded, .tau = 3, .nu = 1.5, .eps = 0.1}));
  all.push_back(input({2, 4, 2}, 8, {.heads = 2, .window_height = 2, .window_width = 2, .similarity = bounded, .tau = 3, .nu = 0.7, .eps = 0.1}));
  all.push_back(input({1, 4, 4}, 5, {.heads = 2, .window_height = 2, .window_width = 2, .shift = 1, .similarity = dot}, false));
  return all;
}

Input real_size(Similarity similarity, int shift) {
  return input({1, 14, 21}, 32, {.heads = 3, .window_height = 7, .window_width = 7, .shift = shift, .similarity = similarity});
}

}  // namespace

TEST_CASE("window_attention: equals plain loops") {
  for (const Input& in : cases()) {
    const Result a = run(in), b = twin(in);
    CHECK(distance(a.out, b.out) < 1e-12);
    CHECK(distance(a.entropy, b.entropy) < 1e-6);
  }
}

TEST_CASE("window_attention: gradients equal finite differences") {
  for (const Input& in : cases()) {
    const Result exact = run(in);
    const auto loss = [&] {
      const std::vector<double> out = window_attention(in.qkv, in.table, in.config).out.values(), dout = in.dout.values();
      double sum = 0;
      for (size_t i = 0; i < out.size(); i++) sum += out[i] * dout[i];
      return sum;
    };
    const auto differences = [&](const Tensor& x) {
      std::vector<double> slopes;
      for (int64_t i = 0; i < (x ? x.size() : 0); i++) {
        double& value = x.data<double>()[i];
        const double there = value, step = 1e-5;
        value = there + step;
        const double above = loss();
        value = there - step;
        slopes.push_back((above - loss()) / (2 * step));
        value = there;
      }
      return slopes;
    };
    CHECK(distance(exact.dqkv, differences(in.qkv)) < 1e-7);
    CHECK(distance(exact.dtable, differences(in.table)) < 1e-7);
  }
}

TEST_CASE("window_attention: below the cosine's clamp a row is scaled and not normalised") {
  Input in = cases()[3];
  double* q = in.qkv.data<double>();   // of token 0, head 0
  for (int c = 0; c < 8; c++) q[c] *= 1e-14;
  CHECK(distance(run(in).out, twin(in).out) < 1e-12);
  const std::vector<double> exact = run(in).dqkv, dout = in.dout.values();
  const auto loss = [&] {
    double sum = 0;
    const std::vector<double> out = twin(in).out;
    for (size_t i = 0; i < out.size(); i++) sum += out[i] * dout[i];
    return sum;
  };
  std::vector<double> slopes;
  for (int c = 0; c < 8; c++) {
    const double there = q[c], step = 1e-17;
    q[c] = there + step;
    const double above = loss();
    q[c] = there - step;
    slopes.push_back((above - loss()) / (2 * step));
    q[c] = there;
  }
  CHECK(distance({exact.begin(), exact.begin() + 8}, slopes) < 1e-6);
}

TEST_CASE("window_attention: the paper's bounded form on a known example") {
  const double x[3][2] = {{1, 2}, {3, -1}, {0.5, 0.25}}, dout[3][2] = {{1, 2}, {3, 4}, {5, 6}};
  const std::vector<double> known_out = {0.826003, 1.192295, 0.596219, 1.349275, 0.677784, 1.298113};
  const std::vector<double> known_dx = {0.940664, -0.464610, 0.061161, 0.181915, -0.107313, 0.602037};
  // Three tokens that see only each other: the last row of the first window, which the roll by 1 brings in from row 0, columns 1 to 3.
  const int first = 1;
  std::vector<double> qkv(18 * 6, 0.3), g(18 * 2, 0);
  for (int i = 0; i < 3; i++) {
    const double row[6] = {x[i][0], x[i][1], x[i][1], x[i][0], x[i][0], x[i][0] + x[i][1]};
    std::copy_n(row, 6, &qkv[(first + i) * 6]);
    std::copy_n(dout[i], 2, &g[(first + i) * 2]);
  }
  const WindowAttention config{
      .heads = 1, .window_height = 3, .window_width = 3, .shift = 1, .similarity = Similarity::cosine_bounded, .tau = 2, .nu = 1.5, .eps = 0.01};
  const Input in{config, Tensor::from({1, 3, 6, 6}, qkv, DType::f64), {}, Tensor::from({1, 3, 6, 2}, g, DType::f64)};
  for (const Device device : {Device{}, fibers_device}) {
    const Result r = run(in, DType::f64, device);
    std::vector<double> dx;
    for (int i = 0; i < 3; i++) {
      const double* d = &r.dqkv[(first + i) * 6];
      dx.push_back(d[0] + d[3] + d[4] + d[5]);
      dx.push_back(d[1] + d[2] + d[5]);
    }
    CHECK(distance({&r.out[first * 2], &r.out[first * 2 + 6]}, known_out) < 1e-6);
    CHECK(distance(dx, known_dx) < 1e-6);
  }
}

TEST_CASE("window_attention: f32 equals f64, bf16 nearly") {
  for (const Input& in : cases()) {
    const Result exact = run(in);
    check_equal(run(in, DType::f32), exact, 1e-5);
    check_equal(run(in, DType::bf16), exact, 0.03);
  }
  for (const int shift : {0, 3})
    for (const Similarity s : {Similarity::dot, Similarity::cosine, Similarity::cosine_bounded}) {
      const Input in = real_size(s, shift);
      check_equal(run(in, DType::f32), run(in), 1e-5);
    }
}

TEST_CASE("window_attention: head widths that are and are not whole vectors") {
  for (const int dim : {1, 8, 16, 17, 24, 48, 64}) {
    const Input in = input({1, 10, 5}, dim, {.heads = 2, .window_height = 5, .window_width = 5, .shift = 2});
    const Result f64 = run(in), f32 = run(in, DType::f32);
    CHECK(distance(f64.out, twin(in).out) < 1e-12);
    check_equal(f32, f64, 2e-5);
    check_equal(run(in, DType::f32, fibers_device), f32, 1e-5);
  }
}

TEST_CASE("window_attention: the kernels equal the CPU in every schedule") {
  for (const Input& in : cases()) {
    const Result f32 = run(in, DType::f32), f64 = run(in), half = run(in, DType::bf16);
    for (const unsigned schedule : {0u, 1u, 2u}) {
      fibers::schedule = schedule;
      check_equal(run(in, DType::f32, fibers_device), f32, 1e-5);
      check_equal(run(in, DType::bf16, fibers_device), half, 0.01);
      check_equal(run(in, DType::f64, fibers_device), f64, 1e-12);
    }
    fibers::schedule = 0;
  }
  const Input in = real_size(Similarity::cosine, 3);
  check_equal(run(in, DType::f32, fibers_device), run(in, DType::f32), 1e-5);
}

TEST_CASE("window_attention: the number of threads changes nothing") {
  const Input in = input({3, 14, 14}, 8, {.heads = 3, .window_height = 2, .window_width = 2, .shift = 1, .similarity = Similarity::cosine});
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const Result one = run(in, DType::f32);
  for (const int n : {2, 5}) {
    omp_set_num_threads(n);
    const Result many = run(in, DType::f32);
    CHECK(one.out == many.out);
    CHECK(one.entropy == many.entropy);
    CHECK(one.dqkv == many.dqkv);
    CHECK(one.dtable == many.dtable);
  }
  omp_set_num_threads(threads);
}

TEST_CASE("window_attention: gradients are added to what is there") {
  for (const Device device : {Device{}, fibers_device})
    for (const Input& in : cases()) {
      const Result once = run(in, DType::f64, device);
      Result twice = run(in, DType::f64, device, true);
      for (double& v : twice.dqkv) v /= 2;
      for (double& v : twice.dtable) v /= 2;
      check_equal(twice, once, 1e-13);
    }
}

TEST_CASE("window_attention: only the gradient that is wanted") {
  for (const Device device : {Device{}, fibers_device})
    for (const bool want_table : {false, true}) {
      const Input in = cases()[2];
      const Result both = run(in, DType::f64, device);
      Tensor qkv = in.qkv.to(device), table = in.table.to(device);
      want_grad(want_table ? table : qkv);
      Tape tape;
      Tensor out;
      {
        const TapeScope open(&tape);
        out = window_attention(qkv, table, in.config).out;
      }
      tape.backward(out, in.dout.to(device));
      CHECK(grad_of(want_table ? table : qkv).values() == (want_table ? both.dtable : both.dqkv));
      CHECK(!grad_of(want_table ? qkv : table));
    }
}

TEST_CASE("window_attention: the table may be stored in another type than the activations") {
  const Input in = cases()[1];
  Tensor qkv = in.qkv.to(DType::bf16), table = in.table.to(DType::f32);
  want_grad(qkv);
  want_grad(table);
  Tape tape;
  Tensor out;
  {
    const TapeScope open(&tape);
    out = window_attention(qkv, table, in.config).out;
  }
  tape.backward(out, in.dout.to(DType::bf16));
  CHECK(grad_of(table).dtype() == DType::f32);
  CHECK(distance(grad_of(table).values(), run(in).dtable) < 0.03);
}

TEST_CASE("window_attention: a row of zeros has a finite gradient, and what is not finite is not hidden") {
  Input in = cases()[2];
  for (int64_t i = 0; i < in.qkv.dim(3); i++) in.qkv.data<double>()[i] = 0;
  for (const double v : run(in, DType::f32).dqkv) REQUIRE(std::isfinite(v));
  in.qkv.data<double>()[0] = NAN;
  for (const Device device : {Device{}, fibers_device}) {
    bool found = false;
    for (const double v : run(in, DType::f32, device).out) found |= std::isnan(v);
    CHECK(found);
  }
}

TEST_CASE("window_attention: no byte is written outside, none is read before it is written") {
  memory_debug() = {.poison = true, .guard = true};
  const size_t before = guard_violations();
  for (const Input& in : cases())
    for (const Device device : {Device{}, fibers_device}) {
      const Result r = run(in, DType::f32, device);
      for (const auto* values : {&r.out, &r.entropy, &r.dqkv, &r.dtable})
        for (const double v : *values) REQUIRE(std::isfinite(v));
    }
  memory_debug() = {};
  CHECK(guard_violations() == before);
}

TEST_CASE("window_attention: what does not fit is refused") {
  const auto refused = [](Shape qkv, Shape table, const WindowAttention& config) {
    CHECK_THROWS_AS(window_attention(Tensor::zeros(qkv, DType::f32), Tensor::zeros(table, DType::f32), config), Error);
  };
  refused({1, 4, 5, 12}, {9, 2}, {.heads = 2, .window_height = 2, .window_width = 2});               // 5 columns in windows of 2
  refused({1, 4, 4, 14}, {9, 2}, {.heads = 2, .window_height = 2, .window_width = 2});               // 14 channels
  refused({1, 4, 4, 12}, {16, 2}, {.heads = 2, .window_height = 2, .window_width = 2});              // another window's table
  refused({1, 4, 4, 12}, {9, 2}, {.heads = 2, .window_height = 2, .window_width = 2, .shift = 2});   // a shift by a whole window
  refused({16, 12}, {9, 2}, {.heads = 2, .window_height = 2, .window_width = 2});
}
