// unfold, window_depthwise_conv.
#include "op_case.h"

namespace {

struct Patches {
  Shape x;
  int kernel, stride, padding;
};

std::vector<double> numbers(const Shape& shape) {
  RandomSequence random(RandomStream(31, "maps"), 0, uint64_t(shape.size()));
  return normal()(shape, random);
}

// Rows of patches by plain loops.
std::vector<double> unfolded(const Patches& p, const std::vector<double>& x) {
  const int64_t height = p.x[1], width = p.x[2], channels = p.x[3];
  std::vector<double> out;
  for (int64_t b = 0; b < p.x[0]; b++)
    for (int64_t top = -p.padding; top + p.kernel <= height + p.padding; top += p.stride)
      for (int64_t left = -p.padding; left + p.kernel <= width + p.padding; left += p.stride)
        for (int64_t c = 0; c < channels; c++)
          for (int64_t y = top; y < top + p.kernel; y++)
            for (int64_t k = left; k < left + p.kernel; k++) {
              const bool inside = y >= 0 && y < height && k >= 0 && k < width;
              out.push_back(inside ? x[((b * height + y) * width + k) * channels + c] : 0);
            }
  return out;
}

struct Windowed {
  Shape x;
  int kernel, height, width;
};

std::vector<Input> inputs_of(const Windowed& w, bool bias) {
  std::vector<Input> inputs{{w.x}, {{w.x[3], 1, w.kernel, w.kernel}, normal(0.5), Role::weight}};
  if (bias) inputs.push_back({{w.x[3]}, normal(), Role::wide_weight});
  return inputs;
}

OpFunction op_of(const Windowed& w) {
  return [w](const Inputs& in) { return window_depthwise_conv(in[0], in[1], in.size() > 2 ? in[2] : Tensor(), w.height, w.width); };
}

}  // namespace

TEST_CASE("ops: unfold") {
  for (const Patches& p : {Patches{{1, 1, 1, 1}, 1, 1, 0}, Patches{{2, 9, 8, 3}, 7, 4, 2}, Patches{{2, 6, 6, 5}, 3, 2, 1},
                           Patches{{1, 7, 5, 2}, 3, 1, 1}, Patches{{1, 8, 11, 2}, 2, 3, 0}, Patches{{1, 3, 3, 1}, 5, 2, 3}}) {
    const std::string name = str("unfold ", p.x, " kernel ", p.kernel, " stride ", p.stride, " padding ", p.padding);
    check_op({.name = name, .inputs = {{p.x}}, .op = [p](const Inputs& in) { return unfold(in[0], p.kernel, p.stride, p.padding); },
              .samples = 32});
    const std::vector<double> x = numbers(p.x);
    check_close(name, unfolded(p, x), unfold(Tensor::from(p.x, x, DType::f64), p.kernel, p.stride, p.padding).values(), {0, 0});
  }
}

TEST_CASE("ops: unfold of patches that do not overlap is patchify") {
  // With one channel a map is its own transposed image.
  check_op({.name = "unfold as patchify", .inputs = {{{2, 8, 12, 1}}}, .op = [](const Inputs& in) { return unfold(in[0], 4, 4, 0); },
            .twin = [](const Inputs& in) { return patchify(in[0].view({2, 1, 8, 12}), 4); }});
  const int64_t batch = 2, side = 6, channels = 3;
  const std::vector<double> image = numbers({batch, channels, side, side});
  std::vector<double> map(image.size());
  for (int64_t b = 0; b < batch; b++)
    for (int64_t c = 0; c < channels; c++)
      for (int64_t i = 0; i < side * side; i++) map[(b * side * side + i) * channels + c] = image[(b * channels + c) * side * side + i];
  CHECK(unfold(Tensor::from({batch, side, side, channels}, map, DType::f64), 2, 2, 0).values() ==
        patchify(Tensor::from({batch, channels, side, side}, image, DType::f64), 2).values());
}

TEST_CASE("ops: unfold and a product are a convolution") {
  const int64_t c = 4;
  const Shape shape{2, 5, 7, c};
  const std::vector<double> taps = numbers({c, 1, 3, 3});
  std::vector<double> diagonal(c * c * 9, 0.0);   // [C, C*9]: each channel sees itself only
  for (int64_t i = 0; i < c; i++) std::copy_n(&taps[i * 9], 9, &diagonal[(i * c + i) * 9]);
  const Tensor x = Tensor::from(shape, numbers(shape), DType::f64);
  const Tensor wanted = depthwise_conv(x, Tensor::from({c, 1, 3, 3}, taps, DType::f64), {});
  const Tensor given = linear(unfold(x, 3, 1, 1), Tensor::from({c, c * 9}, diagonal, DType::f64), {});
  check_close("unfold and linear", wanted.values(), given.values(), {1e-28, 1e-14}, shape);
}

TEST_CASE("ops: window_depthwise_conv") {
  for (const bool bias : {true, false})
    for (const Windowed& w : {Windowed{{1, 1, 1, 1}, 1, 1, 1}, Windowed{{2, 6, 4, 5}, 3, 6, 1}, Windowed{{1, 4, 6, 33}, 3, 2, 6},
                              Windowed{{2, 6, 6, 16}, 3, 3, 2}, Windowed{{1, 8, 4, 3}, 5, 4, 4}})
      check_op({.name = str("window_depthwise_conv ", w.x, " in ", w.height, " x ", w.width, bias ? " with bias" : ""),
                .inputs = inputs_of(w, bias), .op = op_of(w), .samples = 24});
  const Windowed large{{2, 8, 8, 5}, 3, 8, 2};
  check_op({.name = "window_depthwise_conv, rows for threads", .inputs = inputs_of(large, true), .op = op_of(large), .samples = 3,
            .kernels = false});
}

TEST_CASE("ops: window_depthwise_conv in one window is depthwise_conv") {
  const Windowed w{{2, 5, 7, 6}, 3, 5, 7};
  check_op({.name = "one window", .inputs = inputs_of(w, true), .op = op_of(w),
            .twin = [](const Inputs& in) { return depthwise_conv(in[0], in[1], in[2]); }, .samples = 8});
}

TEST_CASE("ops: window_depthwise_conv in rows of the map is depthwise_conv of images of that height") {
  const Windowed w{{2, 6, 5, 4}, 3, 2, 5};   // windows as wide as the map: 2 rows are an image
  check_op({.name = "rows as images", .inputs = inputs_of(w, true), .op = op_of(w),
            .twin = [](const Inputs& in) { return depthwise_conv(in[0].view({6, 2, 5, 4}), in[1], in[2]).view({2, 6, 5, 4}); },
            .samples = 8});
}

TEST_CASE("ops: window_depthwise_conv in columns is that of the transposed map with the transposed kernel") {
  const int64_t side = 6, channels = 3;
  const Shape shape{1, side, side, channels}, kernel{channels, 1, 3, 3};
  const std::vector<double> x = numbers(shape), w = numbers(kernel);
  const auto turned_map = [&](const std::vector<double>& from) {
    std::vector<double> to(from.size());
    for (int64_t i = 0; i < side; i++)
      for (int64_t j = 0; j < side; j++) std::copy_n(&from[(i * side + j) * channels], channels, &to[(j * side + i) * channels]);
    return to;
  };
  std::vector<double> turned_kernel(w.size());
  for (int64_t c = 0; c < channels; c++)
    for (int64_t i = 0; i < 9; i++) turned_kernel[c * 9 + i] = w[c * 9 + i % 3 * 3 + i / 3];
  const auto run = [&](const std::vector<double>& map, const std::vector<double>& taps, int height, int width) {
    return window_depthwise_conv(Tensor::from(shape, map, DType::f64), Tensor::from(kernel, taps, DType::f64), {}, height, width).values();
  };
  check_close("columns", turned_map(run(x, w, 6, 2)), run(turned_map(x), turned_kernel, 2, 6), {1e-28, 1e-14}, shape);
}

TEST_CASE("ops: maps that do not fit are refused") {
  const Tensor x = Tensor::zeros({1, 6, 4, 3}, DType::f32), w = Tensor::zeros({3, 1, 3, 3}, DType::f32);
  CHECK_THROWS_WITH_AS(unfold(x, 3, 2, 3), doctest::Contains("0 <= padding < kernel expected"), Error);
  CHECK_THROWS_WITH_AS(unfold(x, 7, 1, 1), doctest::Contains("no patch of 7 fits [1, 6, 4, 3]"), Error);
  CHECK_THROWS_AS(unfold(x, 3, 0, 1), Error);
  CHECK_THROWS_AS(unfold(x.view({6, 4, 3}), 3, 1, 1), Error);
  CHECK_THROWS_WITH_AS(window_depthwise_conv(x, w, {}, 4, 4), doctest::Contains("in windows of 4 x 4 expected, given [1, 6, 4, 3]"), Error);
  CHECK_THROWS_AS(window_depthwise_conv(x, Tensor::zeros({3, 1, 2, 2}, DType::f32), {}, 3, 2), Error);
  CHECK_THROWS_AS(window_depthwise_conv(x, Tensor::zeros({4, 1, 3, 3}, DType::f32), {}, 3, 2), Error);
  CHECK_THROWS_AS(window_depthwise_conv(x, w, Tensor::zeros({4}, DType::f32), 3, 2), Error);
}
