// patchify_pixels, patchify, patch_merge.
#include "op_case.h"

#include <cmath>
#include <set>

namespace {

struct Batch {
  int64_t count = 5, height = 8, width = 12, channels = 3;
  int64_t at(int64_t b, int64_t y, int64_t x, int64_t c) const { return ((b * height + y) * width + x) * channels + c; }
  Tensor pixels() const {
    RandomSequence random(RandomStream(8, "pixels"), 0, 0);
    const Shape shape{count, height, width, channels};
    return Tensor::from(shape, uniform(0, 256)(shape, random), DType::u8);
  }
};

bool inside(const Box& box, int64_t y, int64_t x) {
  return y >= box.top && y < box.top + box.height && x >= box.left && x < box.left + box.width;
}

// Images [B, C, H, W] after the plan: normalise, then erase, then mix with the batch reversed; or mix and round, normalise, erase.
std::vector<double> finished(const Batch& batch, const Tensor& pixels, const PixelPlan& plan) {
  const std::vector<double> raw = pixels.values();
  const auto erased_pixel = [&](int64_t b, int64_t y, int64_t x, int64_t c, double pixel) -> double {
    const int64_t at = batch.at(b, y, x, c);
    int covering = -1;   // the last of the boxes
    for (int i = 0; i < plan.boxes && !plan.erase.empty(); i++)
      if (inside(plan.erase[size_t(b * plan.boxes + i)], y, x)) covering = i;
    if (covering >= 0 && plan.fill == PixelPlan::zero) return 0;
    if (covering >= 0) {
      const int64_t place = plan.fill == PixelPlan::per_box ? covering * batch.channels + c : at - batch.at(b, 0, 0, 0);
      const Words w = plan.noise.words(plan.step, uint64_t(b), uint32_t(place));
      return float(normal_from(w[0], w[1]));
    }
    return (pixel / 255 - plan.mean[c]) / plan.std[c];
  };
  const auto erased = [&](int64_t b, int64_t y, int64_t x, int64_t c) { return erased_pixel(b, y, x, c, raw[batch.at(b, y, x, c)]); };
  std::vector<double> out;
  for (int64_t b = 0; b < batch.count; b++)
    for (int64_t c = 0; c < batch.channels; c++)
      for (int64_t y = 0; y < batch.height; y++)
        for (int64_t x = 0; x < batch.width; x++) {
          if (plan.mix_first) {
            const double own = raw[batch.at(b, y, x, c)], partner = raw[batch.at(batch.count - 1 - b, y, x, c)];
            const bool cut = plan.mix == PixelPlan::cutmix && inside(plan.cut, y, x);
            const double mixed = std::nearbyint(plan.lambda * own + (1 - double(plan.lambda)) * partner);
            out.push_back(erased_pixel(b, y, x, c, plan.mix == PixelPlan::mixup ? mixed : cut ? partner : own));
            continue;
          }
          const double own = erased(b, y, x, c), partner = erased(batch.count - 1 - b, y, x, c);
          if (plan.mix == PixelPlan::mixup) out.push_back(plan.lambda * own + (1 - double(plan.lambda)) * partner);
          else out.push_back(plan.mix == PixelPlan::cutmix && inside(plan.cut, y, x) ? partner : own);
        }
  return out;
}

// Rows [(H/P)(W/P), C P P] of images [B, C, H, W], by a plain loop.
std::vector<double> rows_of(const Batch& batch, const std::vector<double>& images, int64_t patch) {
  std::vector<double> out;
  for (int64_t b = 0; b < batch.count; b++)
    for (int64_t py = 0; py < batch.height / patch; py++)
      for (int64_t px = 0; px < batch.width / patch; px++)
        for (int64_t c = 0; c < batch.channels; c++)
          for (int64_t y = py * patch; y < (py + 1) * patch; y++)
            for (int64_t x = px * patch; x < (px + 1) * patch; x++)
              out.push_back(images[((b * batch.channels + c) * batch.height + y) * batch.width + x]);
  return out;
}

PixelPlan plan_of(PixelPlan::Mix mix, bool erase, const Batch& batch) {
  PixelPlan plan{.mean = {0.485f, 0.456f, 0.406f}, .std = {0.229f, 0.224f, 0.225f}, .erase = {}, .mix = mix, .lambda = 0.3f,
                 .cut = {2, 3, 4, 5}, .noise = RandomStream(9, "erase"), .step = 17};
  plan.mean.resize(batch.channels);
  plan.std.resize(batch.channels);
  if (!erase) return plan;
  plan.erase.resize(batch.count);
  plan.erase[0] = {1, 2, 3, 4};
  plan.erase[batch.count - 1] = {0, 0, int(batch.height), int(batch.width)};
  return plan;
}

// Three boxes for some images, the second over a part of the first, the last none.
PixelPlan with_boxes(PixelPlan plan, PixelPlan::Fill fill, const Batch& batch) {
  plan.fill = fill;
  plan.boxes = 3;
  plan.erase.assign(size_t(batch.count * 3), {});
  plan.erase[0] = {1, 2, 4, 6}, plan.erase[1] = {3, 0, 2, 5};
  plan.erase[4] = {0, 0, 1, 1};
  plan.erase[size_t(batch.count * 3 - 1)] = {2, 1, 5, 9};
  return plan;
}

void check_pixels(const Batch& batch, int patch, const PixelPlan& plan) {
  const GuardedMemory guarded;
  const Tensor pixels = batch.pixels();
  const std::vector<double> images = finished(batch, pixels, plan), wanted = rows_of(batch, images, patch);
  const Shape image_shape{batch.count, batch.channels, batch.height, batch.width};
  const int64_t row_size = wanted.size() / batch.count;
  for (const DType dtype : {DType::f32, DType::f64, DType::bf16}) {
    const Tolerance tolerance = dtype == DType::bf16 ? Tolerance{1e-5, 5e-3} : Tolerance{1e-12, 1e-6};
    const Tensor rows = patchify_pixels(pixels, plan, patch, 0, batch.count, dtype);
    CHECK(rows.shape() == Shape{batch.count, batch.height / patch * (batch.width / patch), batch.channels * patch * patch});
    check_close(str("patchify_pixels in ", dtype), wanted, rows.values(), tolerance, rows.shape());
    check_close("patchify_pixels against patchify", patchify(Tensor::from(image_shape, images, dtype), patch).values(), rows.values(), tolerance);
    // Kernels give the same bits, and so does a part of the batch.
    CHECK(patchify_pixels(pixels.to(Device{Device::cuda}), plan, patch, 0, batch.count, dtype).to(Device{}).values() == rows.values());
    for (const auto& [first, count] : {std::pair<int64_t, int64_t>{0, 2}, {1, 1}, {2, batch.count - 2}}) {
      const Tensor part = patchify_pixels(pixels, plan, patch, first, count, dtype);
      const std::vector<double> all = rows.values();
      CHECK(part.values() == std::vector<double>(all.begin() + first * row_size, all.begin() + (first + count) * row_size));
    }
  }
}

}  // namespace

TEST_CASE("ops: patchify_pixels") {
  const Batch usual, grey{.count = 4, .height = 7, .width = 14, .channels = 1};
  for (const PixelPlan::Mix mix : {PixelPlan::no_mix, PixelPlan::mixup, PixelPlan::cutmix})
    for (const bool erase : {false, true}) {
      check_pixels(usual, 4, plan_of(mix, erase, usual));
      check_pixels(usual, 1, plan_of(mix, erase, usual));
      check_pixels(grey, 7, plan_of(mix, erase, grey));
      PixelPlan timm = plan_of(mix, erase, usual);
      timm.mix_first = true;
      timm.fill = PixelPlan::zero;
      check_pixels(usual, 4, timm);
      timm.lambda = 0.5f;   // halves are rounded to even
      check_pixels(usual, 4, timm);
      for (const PixelPlan::Fill fill : {PixelPlan::per_pixel, PixelPlan::per_box, PixelPlan::zero}) {
        check_pixels(usual, 4, with_boxes(timm, fill, usual));
        check_pixels(usual, 4, with_boxes(plan_of(mix, erase, usual), fill, usual));
      }
    }
}

TEST_CASE("ops: patchify_pixels erases with standard normal noise") {
  const Batch batch{.count = 3, .height = 64, .width = 64, .channels = 3};
  PixelPlan plan = plan_of(PixelPlan::no_mix, false, batch);
  plan.erase.assign(batch.count, {0, 0, 64, 64});
  const std::vector<double> noise = patchify_pixels(batch.pixels(), plan, 4, 0, batch.count, DType::f32).values();
  double sum = 0, squares = 0;
  for (const double v : noise) sum += v, squares += v * v;
  CHECK(std::abs(sum / noise.size()) < 0.02);
  CHECK(squares / noise.size() == doctest::Approx(1).epsilon(0.03));
  const size_t half = noise.size() / 3;
  CHECK(std::vector<double>(noise.begin(), noise.begin() + half) != std::vector<double>(noise.begin() + half, noise.begin() + 2 * half));
  plan.step++;
  CHECK(patchify_pixels(batch.pixels(), plan, 4, 0, batch.count, DType::f32).values() != noise);
}

TEST_CASE("ops: patchify_pixels gives each box a standard normal colour of its own") {
  const Batch batch{.count = 400, .height = 4, .width = 8, .channels = 3};
  PixelPlan plan = plan_of(PixelPlan::no_mix, false, batch);
  plan.fill = PixelPlan::per_box;
  plan.boxes = 2;
  for (int64_t b = 0; b < batch.count; b++) plan.erase.insert(plan.erase.end(), {{0, 0, 4, 4}, {0, 4, 4, 4}});
  const std::vector<double> rows = patchify_pixels(batch.pixels(), plan, 4, 0, batch.count, DType::f32).values();   // a row a box: [C, 16]
  double sum = 0, squares = 0;
  std::set<double> colours;
  for (size_t i = 0; i < rows.size(); i += 16) {
    for (size_t j = 1; j < 16; j++) REQUIRE(rows[i + j] == rows[i]);
    sum += rows[i], squares += rows[i] * rows[i];
    colours.insert(rows[i]);
  }
  const double count = double(rows.size()) / 16;
  CHECK(colours.size() == size_t(count));
  CHECK(std::abs(sum / count) < 5 / std::sqrt(count));
  CHECK(std::abs(squares / count - 1) < 5 * std::sqrt(2 / count));
}

TEST_CASE("ops: patchify") {
  for (const auto& [shape, patch] : {std::pair<Shape, int>{{1, 1, 1, 1}, 1}, {{2, 3, 8, 12}, 4}, {{1, 2, 7, 21}, 7}})
    check_op({.name = str("patchify ", shape, " by ", patch), .inputs = {{shape}},
              .op = [patch = patch](const Inputs& in) { return patchify(in[0], patch); }});
}

TEST_CASE("ops: patch_merge") {
  for (const Shape& shape : {Shape{1, 2, 2, 1}, Shape{2, 6, 4, 7}, Shape{1, 4, 2, 33}})
    check_op({.name = str("patch_merge ", shape), .inputs = {{shape}}, .op = [](const Inputs& in) { return patch_merge(in[0]); }});
}

TEST_CASE("ops: patch_merge puts phases (0,0) (1,0) (0,1) (1,1) side by side") {
  const int64_t batch = 2, height = 4, width = 6, c = 3;
  std::vector<double> numbers(batch * height * width * c);
  for (size_t i = 0; i < numbers.size(); i++) numbers[i] = double(i);
  const std::vector<double> y = patch_merge(Tensor::from({batch, height, width, c}, numbers, DType::f64)).values();
  size_t at = 0;
  for (int64_t b = 0; b < batch; b++)
    for (int64_t i = 0; i < height / 2; i++)
      for (int64_t j = 0; j < width / 2; j++)
        for (const auto& [row, column] : {std::pair{0, 0}, {1, 0}, {0, 1}, {1, 1}})
          for (int64_t k = 0; k < c; k++) CHECK(y[at++] == double(((b * height + 2 * i + row) * width + 2 * j + column) * c + k));
}

TEST_CASE("ops: images that do not fit are refused") {
  const Batch batch;
  const PixelPlan plan = plan_of(PixelPlan::no_mix, false, batch);
  PixelPlan short_mean = plan, few_boxes = plan;
  short_mean.mean.pop_back();
  few_boxes.erase.resize(2);
  const Tensor pixels = batch.pixels();
  CHECK_THROWS_WITH_AS(patchify_pixels(pixels, plan, 5, 0, 5, DType::f32), doctest::Contains("8 x 12 is not divisible by patches of 5"), Error);
  CHECK_THROWS_WITH_AS(patchify_pixels(pixels, plan, 4, 3, 3, DType::f32), doctest::Contains("images 3+3 of 5"), Error);
  CHECK_THROWS_AS(patchify_pixels(pixels, short_mean, 4, 0, 5, DType::f32), Error);
  CHECK_THROWS_AS(patchify_pixels(pixels, few_boxes, 4, 0, 5, DType::f32), Error);
  CHECK_THROWS_AS(patchify_pixels(Tensor::zeros({1, 8, 8, 3}, DType::f32), plan, 4, 0, 1, DType::f32), Error);
  CHECK_THROWS_AS(patchify(Tensor::zeros({1, 3, 8, 6}, DType::f32), 4), Error);
  CHECK_THROWS_AS(patch_merge(Tensor::zeros({1, 3, 4, 2}, DType::f32)), Error);
}
