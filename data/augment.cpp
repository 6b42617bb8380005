// augment.cpp: the draws in the order of torchvision and timm, and the rendering of a view.
#include "data/augment.h"

#include <algorithm>
#include <cmath>

#include "data/file.h"
#include "engine/check.h"

namespace {

constexpr int attempts = 10;  // at a box that fits, as torchvision and timm have it

int round_half_even(double x) { return int(std::nearbyint(x)); }

// A box of about `area` pixels whose sides have a ratio drawn from [ratio_min, ratio_max], evenly in the logarithm.
Size draw_sides(double area, double ratio_min, double ratio_max, RandomSequence& draw) {
  const double ratio = std::exp(draw.uniform(std::log(ratio_min), std::log(ratio_max)));
  return {round_half_even(std::sqrt(area / ratio)), round_half_even(std::sqrt(area * ratio))};
}

Box random_resized_crop(const AugmentConfig& c, Size image, RandomSequence& draw) {
  for (int i = 0; i < attempts; i++) {
    const double area = draw.uniform(c.scale_min, c.scale_max) * image.height * image.width;
    const Size box = draw_sides(area, c.ratio_min, c.ratio_max, draw);
    if (box.width < 1 || box.height < 1 || box.width > image.width || box.height > image.height) continue;
    const int top = int(draw.below(uint32_t(image.height - box.height + 1)));
    const int left = int(draw.below(uint32_t(image.width - box.width + 1)));
    return {top, left, box.height, box.width};
  }
  // The largest centred box whose ratio is allowed.
  const double ratio = double(image.width) / image.height;
  Size box = image;
  if (ratio < c.ratio_min) box.height = std::clamp(round_half_even(image.width / c.ratio_min), 1, image.height);
  if (ratio > c.ratio_max) box.width = std::clamp(round_half_even(image.height * c.ratio_max), 1, image.width);
  return {(image.height - box.height) / 2, (image.width - box.width) / 2, box.height, box.width};
}

EraseBox draw_erase_box(const AugmentConfig& c, int count, RandomSequence& draw) {
  const int side = c.image_size;
  for (int i = 0; i < attempts; i++) {
    const double area = draw.uniform(c.erasing_area_min, c.erasing_area_max) * side * side / count;
    const Size box = draw_sides(area, c.erasing_ratio_min, 1 / c.erasing_ratio_min, draw);
    if (box.width < 1 || box.height < 1 || box.width >= side || box.height >= side) continue;
    const int top = int(draw.below(uint32_t(side - box.height + 1)));
    const int left = int(draw.below(uint32_t(side - box.width + 1)));
    return {top, left, box.height, box.width};
  }
  return {};
}

EraseBoxes draw_erase(const AugmentConfig& c, RandomSequence& draw) {
  EraseBoxes boxes;
  if (!draw.chance(c.erasing)) return boxes;
  const int count = c.erasing_count == 1 ? 1 : 1 + int(draw.below(uint32_t(c.erasing_count)));
  for (int i = 0; i < count; i++) boxes[size_t(i)] = draw_erase_box(c, count, draw);
  return boxes;
}

Size short_side_to(int side, Size image) {
  const int64_t height = image.height, width = image.width;
  if (width <= height) return {int(side * height / width), side};
  return {side, int(side * width / height)};
}

// Marsaglia and Tsang's method; below 1 the shape is raised by one and brought back by a power of a uniform number.
double draw_gamma(double shape, RandomSequence& draw) {
  if (shape < 1) {
    const double u = 1 - draw.uniform();
    return draw_gamma(shape + 1, draw) * std::pow(u, 1 / shape);
  }
  const double d = shape - 1.0 / 3, c = 1 / std::sqrt(9 * d);
  while (true) {
    const double x = draw.normal(), v = std::pow(1 + c * x, 3);
    const double u = 1 - draw.uniform();
    if (v > 0 && std::log(u) < 0.5 * x * x + d - d * v + d * std::log(v)) return d * v;
  }
}

double draw_beta(double alpha, RandomSequence& draw) {
  const double a = draw_gamma(alpha, draw), b = draw_gamma(alpha, draw);
  return a + b > 0 ? a / (a + b) : 0.5;
}

}  // namespace

void validate(const AugmentConfig& c) {
  const auto must = [](bool holds, const char* what) {
    if (!holds) fail(Exit::config, "augmentation: ", what);
  };
  const auto probability = [](double p) { return p >= 0 && p <= 1; };
  must(c.image_size >= 1 && c.image_size <= 4096, "the image size must lie in 1 .. 4096");
  must(c.channels == 1 || c.channels == 3, "the number of channels must be 1 or 3");
  must(c.scale_min > 0 && c.scale_min <= c.scale_max && c.scale_max <= 1,
       "the crop scale must lie in (0, 1], the smaller first");
  must(c.ratio_min > 0 && c.ratio_min <= c.ratio_max && c.ratio_max <= 100,
       "the crop ratio must lie in (0, 100], the smaller first");
  must(c.crop_padding >= 0 && c.crop_padding <= c.image_size, "the crop padding must lie in 0 .. image size");
  must(c.crop_pct >= 0.25 && c.crop_pct <= 1, "crop_pct must lie in 0.25 .. 1");
  must(probability(c.hflip), "the flip probability must lie in 0 .. 1");
  must(c.channels == 3 || (c.auto_augment.kind == AutoAugment::none && c.color_jitter == 0 && c.hue == 0),
       "auto_augment, color_jitter and hue are for images of 3 channels");
  must(c.color_jitter >= 0 && c.color_jitter <= 1, "the colour jitter must lie in 0 .. 1");
  must(c.hue >= 0 && c.hue <= 0.5, "the hue's jitter must lie in 0 .. 0.5");
  must(c.repeats >= 1 && c.repeats <= 256, "the repeats must lie in 1 .. 256");
  must(probability(c.erasing), "the erasing probability must lie in 0 .. 1");
  must(c.erasing_count >= 1 && c.erasing_count <= max_erase_boxes, "the count of erasing boxes must lie in 1 .. 8");
  must(c.erasing_area_min > 0 && c.erasing_area_min <= c.erasing_area_max && c.erasing_area_max <= 1,
       "the erased area must lie in (0, 1], the smaller first");
  must(c.erasing_ratio_min > 0 && c.erasing_ratio_min <= 1, "the erasing ratio must lie in (0, 1]");
  must(c.mixup_alpha >= 0 && c.cutmix_alpha >= 0, "mixup and cutmix alpha must not be negative");
  must(probability(c.mix_prob) && probability(c.switch_prob), "the mix and switch probabilities must lie in 0 .. 1");
  must(c.label_smoothing >= 0 && c.label_smoothing < 1, "label smoothing must lie in [0, 1)");
  must(c.std[0] > 0 && c.std[1] > 0 && c.std[2] > 0, "std must be positive");
}

View training_view(const AugmentConfig& c, Size image, RandomSequence& draw) {
  View view;
  if (c.random_resized_crop) {
    view.source = random_resized_crop(c, image, draw);
    view.resized = {c.image_size, c.image_size};
  } else {
    view.source = {0, 0, image.height, image.width};
    view.resized = short_side_to(c.image_size, image);
    const int down = view.resized.height - c.image_size + 2 * c.crop_padding;
    const int right = view.resized.width - c.image_size + 2 * c.crop_padding;
    view.top = int(draw.below(uint32_t(down + 1))) - c.crop_padding;
    view.left = int(draw.below(uint32_t(right + 1))) - c.crop_padding;
  }
  view.flip = draw.chance(c.hflip);
  view.interpolation = c.interpolation ? *c.interpolation : draw_interpolation(draw);
  view.erase = draw_erase(c, draw);
  return view;
}

View evaluation_view(const AugmentConfig& c, Size image) {
  View view;
  view.source = {0, 0, image.height, image.width};
  view.resized = short_side_to(int(std::floor(c.image_size / c.crop_pct)), image);
  view.top = round_half_even((view.resized.height - c.image_size) / 2.0);
  view.left = round_half_even((view.resized.width - c.image_size) / 2.0);
  view.interpolation = c.interpolation.value_or(Interpolation::bicubic);
  return view;
}

Mix draw_mix(const AugmentConfig& c, RandomSequence& draw) {
  const bool can_mixup = c.mixup_alpha > 0, can_cutmix = c.cutmix_alpha > 0;
  if ((!can_mixup && !can_cutmix) || !draw.chance(c.mix_prob)) return {};
  const bool cutmix = can_mixup && can_cutmix ? draw.chance(c.switch_prob) : can_cutmix;
  Mix mix;
  mix.kind = cutmix ? Mix::cutmix : Mix::mixup;
  const double lambda = draw_beta(cutmix ? c.cutmix_alpha : c.mixup_alpha, draw);
  mix.lambda = float(lambda);
  if (!cutmix) return mix;

  const int side = c.image_size, cut = int(side * std::sqrt(1 - lambda));
  const int row = int(draw.below(uint32_t(side))), column = int(draw.below(uint32_t(side)));
  mix.top = std::clamp(row - cut / 2, 0, side);
  mix.bottom = std::clamp(row + cut / 2, 0, side);
  mix.left = std::clamp(column - cut / 2, 0, side);
  mix.right = std::clamp(column + cut / 2, 0, side);
  // The border may have cut off part of the box: lambda is what is really left.
  mix.lambda = float(1 - double(mix.bottom - mix.top) * (mix.right - mix.left) / (double(side) * side));
  return mix;
}

namespace {

// The most that leaves both sides of the source at least as long as what it is resized to.
int shrink_for(const View& view) {
  int shrink = 1;
  while (shrink < 8 && view.source.height >= 2 * shrink * view.resized.height && view.source.width >= 2 * shrink * view.resized.width) shrink *= 2;
  return shrink;
}

}  // namespace

Renderer::Renderer(const AugmentConfig& config) : config_(config) {
  for (int c = 0; c < 3; c++) fill_[c] = uint8_t(std::clamp(round_half_even(255.0 * config.mean[c]), 0, 255));
}

EraseBoxes Renderer::training(std::span<const uint8_t> bytes, RandomSequence draw, uint8_t* out) {
  View view = training_view(config_, decoder_.open(bytes), draw);
  if (config_.scaled_decode && decoder_.can_shrink()) view.shrink = shrink_for(view);
  render(view, out);
  ops_.clear();
  draw_ops(config_.auto_augment, config_.interpolation, draw, ops_);
  draw_color_jitter(config_.color_jitter, config_.hue, draw, ops_);
  for (const ImageOp& op : ops_) edit_(op, fill_, out, config_.image_size, config_.image_size);
  return view.erase;
}

void Renderer::evaluation(std::span<const uint8_t> bytes, uint8_t* out) {
  render(evaluation_view(config_, decoder_.open(bytes)), out);
}

// Into region_: the pixels that the view's source touches. Returns where it lies in them.
RealBox Renderer::decode(const View& view) {
  const int k = view.shrink;
  const RealBox box{view.source.top / double(k), view.source.left / double(k), view.source.height / double(k), view.source.width / double(k)};
  const int top = int(box.top), left = int(box.left);
  const Box region{top, left, int(std::ceil(box.top + box.height)) - top, int(std::ceil(box.left + box.width)) - left};
  const size_t bytes = size_t(region.height) * size_t(region.width) * size_t(config_.channels);
  if (bytes > region_.pixels.capacity()) resize_exactly(region_.pixels, bytes);
  decoder_.read(region, config_.channels, k, region_);
  return {box.top - top, box.left - left, box.height, box.width};
}

void Renderer::render(const View& view, uint8_t* out) {
  const RealBox part = decode(view);
  const int side = config_.image_size, channels = config_.channels;
  const int top = std::max(0, view.top), bottom = std::min(view.resized.height, view.top + side);
  const int left = std::max(0, view.left), right = std::min(view.resized.width, view.left + side);
  const bool sticks_out = bottom - top < side || right - left < side;
  if (sticks_out) std::fill_n(out, size_t(side) * side * channels, 0);
  const size_t stride = size_t(side) * channels;
  const int margin = view.flip ? view.left + side - right : left - view.left;   // of zeros, on the left
  uint8_t* corner = out + (top - view.top) * stride + size_t(margin) * channels;
  resize_(region_, part, view.resized, {top, left, bottom - top, right - left}, view.interpolation, view.flip, corner, stride);
}
