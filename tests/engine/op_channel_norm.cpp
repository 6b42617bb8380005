// channel_norm: traces of the released layers, exact gradients where they are exact, and what outliers and odd input do.
#include "op_case.h"

#include <climits>
#include <cmath>

namespace {

using Numbers = std::vector<double>;
constexpr Device cpu{Device::cpu}, cuda{Device::cuda};

ChannelNormState fresh_state(int64_t channels, int window, DType dtype = DType::f32, Device device = cpu) {
  return {.running_mean = Tensor::zeros({channels}, dtype, device), .running_var = Tensor::full({channels}, 1, dtype, device),
          .ema_gz = Tensor::zeros({channels}, dtype, device), .buffer_x2 = Tensor::zeros({window, channels}, dtype, device),
          .buffer_gz = Tensor::zeros({window, channels}, dtype, device), .iters = Tensor::zeros({1}, dtype, device),
          .skip_counter = Tensor::zeros({1}, dtype, device)};
}

std::vector<Numbers> numbers_of(const ChannelNormState& s) {
  return {s.running_mean.values(), s.running_var.values(), s.ema_gz.values(), s.buffer_x2.values(), s.buffer_gz.values(),
          s.iters.values(), s.skip_counter.values()};
}

struct Passed {
  Numbers y, dx, dweight, dbias;
};

// One training step: forward, and back from dy.
Passed step(const ChannelNorm& method, const ChannelNormState& state, const Tensor& x, const Tensor& dy, const Numbers& weight,
            const Numbers& bias, Device device = cpu) {
  const DType wide = x.dtype() == DType::f64 ? DType::f64 : DType::f32;
  Tensor in = x.to(device), w = Tensor::from({int64_t(weight.size())}, weight, wide, device),
         b = Tensor::from({int64_t(bias.size())}, bias, wide, device);
  want_grad(in), want_grad(w), want_grad(b);
  Tape tape;
  const TapeScope open(&tape);
  const Tensor y = channel_norm(in, w, b, method, state, true);
  tape.backward(y, dy.to(device));
  return {y.to(cpu).values(), grad_of(in).to(cpu).values(), grad_of(w).to(cpu).values(), grad_of(b).to(cpu).values()};
}

// The stream of the golden numbers: two channels, four rows; ten times as large at t = 7.
struct Stream {
  Tensor x, dy;
  explicit Stream(int t, int64_t rows = 4, int64_t channels = 2, DType dtype = DType::f32) {
    Numbers xs, dys;
    for (int64_t i = 0; i < rows; i++)
      for (int64_t c = 0; c < channels; c++) {
        const double spread = (1 + 0.5 * c) * (1 + 0.2 * std::sin(0.9 * t + c));
        xs.push_back((t == 7 ? 10 : 1) * spread * std::sin(0.7 * (i + 1) + 1.3 * c + 0.31 * t));
        dys.push_back(std::cos(0.5 * (i + 1) - 0.4 * c + 0.17 * t));
      }
    x = Tensor::from({rows, channels}, xs, dtype);
    dy = Tensor::from({rows, channels}, dys, dtype);
  }
};

using Pair = std::array<double, 2>;
struct Golden {   // what is NaN is not compared
  int t;
  double skips;
  Pair q, running_var, h, ema, y0, dx0, dweight;
};
constexpr Pair none{NAN, NAN};

void check_pair(const char* what, int t, const Pair& wanted, const Numbers& given, size_t at = 0) {
  for (size_t c = 0; c < 2; c++) {
    if (std::isnan(wanted[c])) continue;
    const double error = std::abs(given[at + c] - wanted[c]);
    CHECK_MESSAGE(error <= 1e-5 * std::abs(wanted[c]) + 2e-6, what, " of channel ", c, " at t = ", t, " is ", given[at + c],
                  " instead of ", wanted[c]);
  }
}

void check_trace(const ChannelNorm& method, int window, const std::vector<Golden>& wanted) {
  const ChannelNormState state = fresh_state(2, window);
  for (int t = 1; t <= wanted.back().t; t++) {
    const Stream stream(t);
    const Passed p = step(method, state, stream.x, stream.dy, {1.2, 0.8}, {0.1, -0.2});
    REQUIRE(state.iters.item() == t);
    for (const Golden& g : wanted) {
      if (g.t != t) continue;
      CHECK(state.skip_counter.item() == g.skips);
      check_pair("q", t, g.q, state.buffer_x2.values(), size_t(t % window) * 2);
      check_pair("running_var", t, g.running_var, state.running_var.values());
      check_pair("h", t, g.h, state.buffer_gz.values(), size_t(t % window) * 2);
      check_pair("ema_gz", t, g.ema, state.ema_gz.values());
      check_pair("y", t, g.y0, p.y);
      check_pair("dx", t, g.dx0, p.dx);
      check_pair("dweight", t, g.dweight, p.dweight);
    }
  }
}

ChannelNorm unified(ChannelNorm::Filter filter, int window = 3, int warmup = 4) {
  return {.method = BatchNorm::unified, .window_forward = window, .window_backward = window, .warmup = warmup, .filter = filter};
}

std::vector<Input> norm_inputs(const Shape& shape, Role role = Role::wide_weight) {
  return {{shape, normal(1.5, 0.7)}, {{shape[-1]}, normal(0.3, 1), role}, {{shape[-1]}, normal(0.3), role}};
}

Numbers varied(int64_t channels, double first, double growth) {
  Numbers out(channels);
  for (int64_t c = 0; c < channels; c++) out[c] = first + growth * double(c);
  return out;
}

}  // namespace

TEST_CASE("ops: channel_norm unified follows the released layer, outliers filtered") {
  check_trace(unified(ChannelNorm::pooled), 3, {
      {1, 0, {0.717491, 1.403710}, {0.971749, 1.040371}, {0.395793, 0.251704}, {0.039579, 0.025170},
       {1.487634, 0.690155}, {1.056388, 0.627125}, {1.319310, 1.258518}},
      {2, 0, {0.711176, 1.198935}, {0.945692, 1.056227}, {0.397382, 0.177335}, {0.075360, 0.040387},
       {1.746911, 0.382643}, {0.827126, 0.634165}, {1.324606, 0.886676}},
      {3, 0, {0.542926, 0.911576}, {0.905415, 1.041762}, {0.431166, 0.136983}, {0.110940, 0.050046},
       {1.864678, 0.035988}, {0.644762, 0.671319}, {1.437221, 0.684916}},
      {4, 0, {0.363873, 0.784609}, {0.866860, 1.032591}, {0.423283, 0.113211}, {0.141574, 0.059293},
       {1.514783, -0.296918}, {0.402479, 0.590856}, {1.410943, 0.566054}},
      {6, 0, {0.329869, 1.319398}, {0.769006, 1.014027}, {0.741310, 0.149048}, {0.212624, 0.072593},
       {1.078980, -1.012623}, {-0.197665, 0.424577}, {2.471035, 0.745238}},
      // The outlier: S of before stands in its slot, E of before in that of the gradient.
      {7, 1, {0.769006, 1.014027}, {5.716641, 17.371117}, {0.212624, 0.072593}, {0.275791, 0.076848},
       {0.555677, -1.137391}, {-0.065362, 0.027797}, {2.814308, 0.575686}},
      {8, 1, {0.721042, 1.574861}, {5.201742, 15.762205}, {1.044612, 0.078116}, {0.314830, 0.079155},
       {0.029135, -1.425380}, {-0.429549, 0.185204}, {3.482039, 0.390582}},
      {11, 1, {0.446228, 0.633637}, {3.980779, 11.775286}, {0.792342, -0.251033}, {0.470281, 0.046961},
       {-1.043275, -1.006882}, {-0.524497, -0.288747}, {2.641141, -1.255166}}});
}

TEST_CASE("ops: channel_norm unified follows the released layer, no filter") {
  check_trace(unified(ChannelNorm::no_filter), 3, {
      {7, 0, {50.245354, 164.584915}, {0.859625, 1.500391}, {4.623892, 0.609267}, {0.387831, 0.094989},
       {2.595581, -5.160357}, {-0.733417, 0.334381}, {15.412972, 3.046337}},
      {8, 0, none, {1.002292, 2.049661}, {0.520511, 0.033447}, {0.545238, 0.111882},
       {0.064689, -0.724665}, {-0.215722, 0.061197}, {1.735038, 0.167233}},
      {1000, 0, none, {0.486183, 1.168732}, {0.520830, -0.361188}, {0.444893, 0.015896},
       {0.713017, -1.070542}, {0.764992, 0.573859}, {1.736101, -1.805938}},
      {1001, 0, none, {0.502612, 1.192914}, {0.542702, -0.337214}, {0.454863, -0.023378},
       {0.112950, -1.120964}, {0.888750, 0.577885}, {1.809008, -1.686069}},
      {1003, 0, none, {0.515746, 1.136290}, {0.415745, -0.285323}, {0.462891, -0.078040},
       {-0.692213, -1.255121}, {0.768433, 0.304076}, {1.385815, -1.426614}}});
}

TEST_CASE("ops: channel_norm moving_average follows the released MABN") {
  const ChannelNorm method{.method = BatchNorm::moving_average, .alpha = 0.98, .window_forward = 3, .window_backward = 3, .warmup = 4};
  check_trace(method, 3, {
      {1, 0, {0.717491, 1.403710}, {0.994350, 1.008074}, {0.395793, 0.251704}, none,
       {1.487634, 0.690155}, {0.570101, 0.414377}, {1.319310, 1.258518}},
      {4, 0, none, {0.970962, 1.008988}, {0.415576, 0.112328}, none,
       {1.489022, -0.296163}, {-0.031213, 0.596339}, {1.385253, 0.561641}},
      {7, 0, none, {1.266928, 2.098617}, {1.453510, 0.198071}, none,
       {0.884481, -1.812601}, {-0.178204, 0.072662}, {4.845034, 0.990357}},
      {1001, 0, none, {0.510349, 1.159896}, {0.531221, -0.339368}, none,
       {0.114663, -1.218226}, {0.868786, 0.250283}, {1.770737, -1.696838}}});
}

TEST_CASE("ops: channel_norm power follows the released PowerNorm") {
  check_trace({.method = BatchNorm::power, .warmup = 4}, 3, {
      {1, 0, none, {0.717491, 1.403710}, none, {0.395793, 0.251704},
       {1.487634, 0.690155}, {1.110420, 0.650764}, {1.319310, 1.258518}},
      {4, 0, none, {0.617410, 1.103813}, none, {1.504406, 0.574996},
       {1.791055, -0.306648}, {0.498604, 0.649595}, {1.686466, 0.622881}},
      {6, 0, none, {0.558616, 1.110186}, none, {2.299320, 0.707307},
       {0.829288, -0.975234}, {-0.089847, 0.357700}, {1.840790, 0.710950}},
      {7, 0, none, {5.527290, 17.457659}, none, {-10.374615, -8.376534},
       {4.421598, -11.613422}, {-0.136952, 0.095938}, {26.690647, 7.009400}},
      {8, 0, none, {5.046665, 15.869378}, none, {-9.904511, -8.279799},
       {0.077290, -0.532066}, {-0.426146, -0.206575}, {1.115886, 0.105844}}});
}

TEST_CASE("ops: channel_norm in evaluation is an affine map of each channel") {
  for (const BatchNorm method : {BatchNorm::batch, BatchNorm::moving_average, BatchNorm::power, BatchNorm::unified})
    for (const Shape& shape : {Shape{1, 1}, Shape{7, 33}, Shape{2, 3, 32}, Shape{2, 2, 2, 5}}) {
      const int64_t channels = shape[-1];
      ChannelNormState state;   // no more than evaluation reads
      state.running_var = Tensor::from({channels}, varied(channels, 0.25, 0.125), DType::f64);
      if (method == BatchNorm::batch) state.running_mean = Tensor::from({channels}, varied(channels, -1, 0.0625), DType::f64);
      const auto twin = [=](const Inputs& in) {
        Numbers scales = state.running_var.values(), means(channels, 0.0);
        for (double& v : scales) v = 1 / std::sqrt(v + 1e-5);
        if (state.running_mean) means = state.running_mean.values();
        for (double& v : means) v = -v;
        const Tensor inverse = Tensor::from({channels}, scales, in[0].dtype());
        const Tensor centred = add_bias(in[0], Tensor::from({channels}, means, in[0].dtype()));
        return add_bias(multiply_channels(multiply_channels(centred, inverse), in[1]), in[2]);
      };
      check_op({.name = str("channel_norm ", int(method), " in evaluation ", shape), .inputs = norm_inputs(shape),
                .op = [=](const Inputs& in) {
                  const Device device = in[0].device();
                  const ChannelNormState there{.running_mean = state.running_mean ? state.running_mean.to(device) : Tensor(),
                                               .running_var = state.running_var.to(device)};
                  return channel_norm(in[0], in[1], in[2], {.method = method}, there, false);
                },
                .twin = twin});
    }
}

TEST_CASE("ops: channel_norm batch in training has the exact gradient") {
  for (const Shape& shape : {Shape{7, 33}, Shape{3, 4, 5}, Shape{130, 3}})
    check_op({.name = str("channel_norm batch ", shape), .inputs = norm_inputs(shape),
              .op = [](const Inputs& in) {
                return channel_norm(in[0], in[1], in[2], {.method = BatchNorm::batch}, fresh_state(in[0].dim(-1), 1, DType::f64, in[0].device()), true);
              }, .samples = 24});
  check_op({.name = "channel_norm batch, bf16 weights", .inputs = norm_inputs({9, 5}, Role::weight),
            .op = [](const Inputs& in) {
              return channel_norm(in[0], in[1], in[2], {.method = BatchNorm::batch}, fresh_state(5, 1, DType::f32, in[0].device()), true);
            }});
}

TEST_CASE("ops: channel_norm unified without smoothing has the exact gradient of quadratic-mean normalisation") {
  const ChannelNorm method{.alpha = 0, .window_forward = 1, .window_backward = 1, .warmup = INT_MAX};
  for (const Shape& shape : {Shape{7, 33}, Shape{3, 4, 5}, Shape{130, 3}})
    check_op({.name = str("channel_norm unified ", shape), .inputs = norm_inputs(shape),
              .op = [=](const Inputs& in) {
                return channel_norm(in[0], in[1], in[2], method, fresh_state(in[0].dim(-1), 1, DType::f64, in[0].device()), true);
              }, .samples = 24});
}

TEST_CASE("ops: channel_norm batch keeps torch's running statistics") {
  const Tensor x = Tensor::from({4, 2}, Numbers{1, 1000, 2, 1001, 4, 1004, 5, 1003}, DType::f32), w = Tensor::full({2}, 1, DType::f32);
  const ChannelNormState state = fresh_state(2, 1);
  const Tensor y = channel_norm(x, w, Tensor::zeros({2}, DType::f32), {.method = BatchNorm::batch}, state, true);
  check_close("running_mean", {0.3, 100.2}, state.running_mean.values(), {1e-12, 1e-6});
  check_close("running_var", {0.9 + 0.1 * 10 / 3, 0.9 + 0.1 * 10 / 3}, state.running_var.values(), {1e-12, 1e-6});
  // The mean of 1002 does not eat the variance of 2.5.
  const double s = 1 / std::sqrt(2.5 + 1e-5);
  check_close("y", {-2 * s, -2 * s, -s, -s, s, 2 * s, 2 * s, s}, y.values(), {1e-12, 1e-6});
}

TEST_CASE("ops: channel_norm runs alike on kernels and on any number of threads") {
  const ChannelNorm methods[] = {{.method = BatchNorm::batch},
                                 {.method = BatchNorm::moving_average, .window_forward = 3, .window_backward = 3, .warmup = 4},
                                 {.method = BatchNorm::power, .warmup = 4}, unified(ChannelNorm::pooled)};
  for (const ChannelNorm& method : methods) {
    const int64_t channels = 37;   // more than a warp has lanes
    const ChannelNormState one = fresh_state(channels, 3), two = fresh_state(channels, 3), kernels = fresh_state(channels, 3, DType::f32, cuda);
    for (int t = 1; t <= 9; t++) {
      const Stream stream(t, 300, channels);
      const Numbers weight = varied(channels, 0.5, 0.25), bias = varied(channels, -0.5, 0.25);
      const auto run = [&](int threads, const ChannelNormState& state, Device device) {
        const Threads so_many(threads);
        return step(method, state, stream.x, stream.dy, weight, bias, device);
      };
      const Passed a = run(1, one, cpu), b = run(2, two, cpu), k = run(1, kernels, cuda);
      CHECK(a.y == b.y);
      CHECK(a.dx == b.dx);
      CHECK(a.dweight == b.dweight);
      CHECK(numbers_of(one) == numbers_of(two));
      const Tolerance tolerance{1e-11, 1e-5};
      check_close(str("y at t = ", t), a.y, k.y, tolerance);
      check_close(str("dx at t = ", t), a.dx, k.dx, tolerance);
      check_close(str("dweight at t = ", t), a.dweight, k.dweight, tolerance);
      check_close(str("dbias at t = ", t), a.dbias, k.dbias, tolerance);
      const auto wanted = numbers_of(one), given = numbers_of(kernels);
      for (size_t i = 1; i < wanted.size(); i++) check_close(str("state ", i, " at t = ", t), wanted[i], given[i], tolerance);
      for (size_t c = 0; c < wanted[0].size(); c++) CHECK(std::abs(wanted[0][c] - given[0][c]) < 2e-5);   // means of what nearly cancels, of a size of 20
    }
    CHECK(one.skip_counter.values() == kernels.skip_counter.values());
    if (method.method == BatchNorm::unified) CHECK(one.skip_counter.item() >= 1);
  }
}

TEST_CASE("ops: channel_norm sees each of more channels than a warp has lanes") {
  const int64_t channels = 37;
  const auto batch = [&](int64_t other, double value) {   // ones, but for one channel
    Numbers values(2 * channels, 1);
    if (other >= 0) values[other] = value, values[channels + other] = -value;
    return Tensor::from({2, channels}, values, DType::f32);
  };
  const auto skips = [&](Device device, const Tensor& last) {
    const ChannelNormState state = fresh_state(channels, 3, DType::f32, device);
    for (int t = 1; t <= 8; t++)   // the window before the last step ends with the fifth one's last channel: all that gives it a variance
      step(unified(ChannelNorm::pooled, 3, 8), state, t == 8 ? last : t == 5 ? batch(36, 100) : batch(-1, 0), Tensor::full({2, channels}, 1, DType::f32),
           Numbers(channels, 1), Numbers(channels, 0), device);
    return state.skip_counter.to(cpu).item();
  };
  for (const Device device : {cpu, cuda}) {
    CHECK(skips(device, batch(0, 2)) == 0);
    CHECK(skips(device, batch(36, 1e5)) == 1);
    CHECK(skips(device, batch(36, INFINITY)) == 1);
  }
}

TEST_CASE("ops: channel_norm bf16 stays close to f32 over a whole trace") {
  const ChannelNormState narrow = fresh_state(5, 3), wide = fresh_state(5, 3);
  for (int t = 1; t <= 9; t++) {
    const Stream stream(t, 40, 5, DType::bf16);
    const Numbers weight = varied(5, 0.5, 0.25), bias = varied(5, 0, 0.1);
    const Passed a = step(unified(ChannelNorm::pooled), narrow, stream.x, stream.dy, weight, bias);
    const Passed b = step(unified(ChannelNorm::pooled), wide, stream.x.to(DType::f32), stream.dy.to(DType::f32), weight, bias);
    check_close("y", b.y, a.y, {2e-5, 1e-2});
    check_close("dx", b.dx, a.dx, {2e-5, 1e-2});
  }
  CHECK(numbers_of(narrow) == numbers_of(wide));   // bf16 is storage: the statistics are computed alike
}

TEST_CASE("ops: channel_norm filters by channel or pooled") {
  // Channel 1 is a hundred times channel 0, which grows at last: only its own window can tell that a tenth is unusual.
  const auto skips_last = [](ChannelNorm::Filter filter, double growth) {
    const ChannelNormState state = fresh_state(2, 3);
    double before = 0;
    for (int t = 1; t <= 8; t++) {
      const double a = t == 8 ? 1 + growth : 1;
      before = state.skip_counter.item();
      const Tensor x = Tensor::from({2, 2}, Numbers{a, 100, -a, 100}, DType::f32);
      step(unified(filter), state, x, Tensor::full({2, 2}, 1, DType::f32), {1, 1}, {0, 0});
    }
    return state.skip_counter.item() - before;
  };
  CHECK(skips_last(ChannelNorm::per_channel, 0.1) == 1);
  CHECK(skips_last(ChannelNorm::pooled, 0.1) == 0);
  CHECK(skips_last(ChannelNorm::pooled, 1000) == 1);
  CHECK(skips_last(ChannelNorm::no_filter, 1000) == 0);
}

TEST_CASE("ops: channel_norm of a dead channel and of a batch of zeros") {
  const ChannelNorm method = unified(ChannelNorm::no_filter);
  const ChannelNormState state = fresh_state(2, 3);
  const Tensor ones = Tensor::full({4, 2}, 1, DType::f32);
  const auto pass = [&](double first, double second) {
    Numbers values;
    for (int i = 0; i < 4; i++) values.insert(values.end(), {first, second});
    return step(method, state, Tensor::from({4, 2}, values, DType::f32), ones, {1, 1}, {0, 0});
  };
  for (int t = 1; t <= 6; t++) {
    const Passed p = pass(2, 0);   // channel 1 is dead
    CHECK(p.y[0] == doctest::Approx(1).epsilon(1e-4));
    CHECK(p.y[1] == 0);
    for (const double v : p.dx) CHECK(std::isfinite(v));
  }
  // One batch of zeros: as released, the geometric mean is 0 while it stands in the window, and the gain is 1 / sqrt(eps).
  pass(0, 0);
  for (int t = 8; t <= 9; t++) CHECK(pass(2, 0).y[0] == doctest::Approx(2 / std::sqrt(1e-5)).epsilon(1e-3));
  CHECK(pass(2, 0).y[0] == doctest::Approx(1).epsilon(1e-4));
}

TEST_CASE("ops: channel_norm keeps what is not finite out of its statistics") {
  for (const BatchNorm kind : {BatchNorm::batch, BatchNorm::moving_average, BatchNorm::power, BatchNorm::unified})
    for (const double bad : {double(INFINITY), double(NAN), 1e30}) {   // the square of 1e30 is no f32
      const ChannelNorm method{.method = kind, .window_forward = 3, .window_backward = 3, .warmup = 4};
      const ChannelNormState state = fresh_state(2, 3);
      const auto pass = [&](int t, bool spoilt) {
        const Stream stream(t);
        if (spoilt) stream.x.data<float>()[2] = float(bad);
        return step(method, state, stream.x, stream.dy, {1.2, 0.8}, {0.1, -0.2});
      };
      for (int t = 1; t <= 5; t++) pass(t, false);
      const Numbers mean = state.running_mean.values(), var = state.running_var.values(), ema = state.ema_gz.values();
      pass(6, true);
      CHECK(state.running_mean.values() == mean);
      CHECK(state.running_var.values() == var);
      CHECK(state.ema_gz.values() == ema);
      CHECK(state.skip_counter.item() == (kind == BatchNorm::unified ? 1 : 0));
      const Passed after = pass(8, false);
      for (const double v : after.y) CHECK(std::isfinite(v));
      for (const double v : after.dx) CHECK(std::isfinite(v));
      for (const Numbers& numbers : numbers_of(state))
        for (const double v : numbers) CHECK(std::isfinite(v));
    }
}

TEST_CASE("ops: channel_norm goes on from a copied state bit for bit") {
  const ChannelNorm method = unified(ChannelNorm::pooled);
  const auto run = [&](const ChannelNormState& state, int from, int to) {
    for (int t = from; t <= to; t++) step(method, state, Stream(t).x, Stream(t).dy, {1.2, 0.8}, {0.1, -0.2});
  };
  for (const int stop : {2, 3, 4, 6}) {   // inside a window and around the end of the warm-up
    const ChannelNormState whole = fresh_state(2, 3), first = fresh_state(2, 3);
    run(whole, 1, 11);
    run(first, 1, stop);
    const ChannelNormState copy{first.running_mean.to(cpu), first.running_var.to(cpu), first.ema_gz.to(cpu), first.buffer_x2.to(cpu),
                                first.buffer_gz.to(cpu), first.iters.to(cpu), first.skip_counter.to(cpu)};
    run(copy, stop + 1, 11);
    CHECK(numbers_of(copy) == numbers_of(whole));
  }
}

TEST_CASE("ops: channel_norm refuses what does not fit") {
  const Tensor x = Tensor::full({4, 2}, 1, DType::f32), w = Tensor::full({2}, 1, DType::f32), bad = Tensor::full({3}, 1, DType::f32);
  const ChannelNormState state = fresh_state(2, 4);
  CHECK_THROWS_WITH_AS(channel_norm(x, bad, w, {}, state, true), doctest::Contains("[channel_norm] x is [4, 2], weight is [3]"), Error);
  CHECK_THROWS_WITH_AS(channel_norm(x, w, w, {}, fresh_state(2, 3), true),
                       doctest::Contains("buffer_x2 must be [4, 2], given [3, 2]"), Error);
  CHECK_THROWS_WITH_AS(channel_norm(x, w, w, {}, fresh_state(3, 4), false), doctest::Contains("running_var must be [2]"), Error);
  CHECK_THROWS_WITH_AS(channel_norm(x, w, w, {}, {}, false), doctest::Contains("running_var must be [2]"), Error);
  CHECK_THROWS_WITH_AS(channel_norm(x, w, w, {}, fresh_state(2, 4, DType::bf16), true),
                       doctest::Contains("must be f32 or f64, given bf16"), Error);
  const Tensor row = Tensor::full({1, 2}, 1, DType::f32);
  CHECK_THROWS_WITH_AS(channel_norm(row, w, w, {.method = BatchNorm::batch}, state, true), doctest::Contains("too few rows"), Error);
  CHECK(state.iters.item() == 0);

  Tensor in = x.to(cpu);
  want_grad(in);
  Tape tape;
  const TapeScope open(&tape);
  const Tensor y = checkpoint([&](const Tensor& z) { return channel_norm(z, w, w, {}, state, true); }, in);
  CHECK_THROWS_WITH_AS(tape.backward(y, x), doctest::Contains("cannot run twice inside an activation checkpoint"), Error);
}
