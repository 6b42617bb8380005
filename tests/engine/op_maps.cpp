// unfold, against plain loops, patchify and convolutions.
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

TEST_CASE("ops: maps that do not fit are refused") {
  const Tensor x = Tensor::zeros({1, 6, 4, 3}, DType::f32);
  CHECK_THROWS_WITH_AS(unfold(x, 3, 2, 3), doctest::Contains("0 <= padding < kernel expected"), Error);
  CHECK_THROWS_WITH_AS(unfold(x, 7, 1, 1), doctest::Contains("no patch of 7 fits [1, 6, 4, 3]"), Error);
  CHECK_THROWS_AS(unfold(x, 3, 0, 1), Error);
  CHECK_THROWS_AS(unfold(x.view({6, 4, 3}), 3, 1, 1), Error);
}
