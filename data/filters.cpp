// filters.cpp: the sums in Pillow's order, because f32 sums depend on it.
#include "data/filters.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "data/color_ops.h"

namespace {

constexpr int channels = 3;

// A box whose width is no whole number: 2 * radius + 1 whole pixels and a part of one more on each side, in 24-bit weights.
struct Box1D {
  int radius;
  uint32_t whole, part;
};

// The box whose threefold use has the variance of a Gaussian, as Pillow works it out in f32 (Gwosdek et al. 2011).
Box1D box_of(float sigma) {
  const float variance = sigma * sigma / 3;
  const float length = std::sqrt(float(12.0 * double(variance) + 1.0));
  const float whole = std::floor((length - 1) / 2);
  float part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance);
  part /= 6 * (variance - (whole + 1) * (whole + 1));
  const float radius = whole + part;
  const int r = int(radius);
  const uint32_t weight = uint32_t(float(1 << 24) / (radius * 2 + 1));
  return {r, weight, ((1u << 24) - uint32_t(r * 2 + 1) * weight) / 2};
}

// One output of a box whose pixels lie `step` bytes apart; `at` gives the byte of a place.
template <int fixed_radius, class At> uint8_t box_sum(const Box1D& box, At at) {
  const int radius = fixed_radius >= 0 ? fixed_radius : box.radius;
  uint32_t sum = 0;
  for (int j = -radius; j <= radius; j++) sum += at(j);
  const uint32_t ends = uint32_t(at(-radius - 1)) + at(radius + 1);
  return uint8_t((box.whole * sum + box.part * ends + (1u << 23)) >> 24);
}

template <int radius> void blur_row(const Box1D& box, const uint8_t* in, int width, uint8_t* out) {
  const int reach = (radius >= 0 ? radius : box.radius) + 1, length = width * channels;
  const auto edge = [&](int begin, int end) {
    for (int i = begin; i < end; i++) {
      const int x = i / channels, c = i % channels;
      out[i] = box_sum<radius>(box, [&](int j) { return in[std::clamp(x + j, 0, width - 1) * channels + c]; });
    }
  };
  const int inner = std::min(reach, width) * channels, outer = std::max(inner, length - reach * channels);
  edge(0, inner);
  for (int i = inner; i < outer; i++) out[i] = box_sum<radius>(box, [&](int j) { return in[i + j * channels]; });
  edge(outer, length);
}

// A radius below 0: the box's own, known only here.
template <int radius> void blur_three_times(const Box1D& box, uint8_t* rgb, int height, int width, uint8_t* scratch) {
  const int64_t length = int64_t(width) * channels;
  for (int y = 0; y < height; y++) {
    uint8_t *row = rgb + y * length, *first = scratch, *second = first + length;
    blur_row<radius>(box, row, width, first);
    blur_row<radius>(box, first, width, second);
    blur_row<radius>(box, second, width, row);
  }
  uint8_t *in = rgb, *out = scratch;
  for (int pass = 0; pass < 3; pass++, std::swap(in, out)) {
    for (int y = 0; y < height; y++) {
      uint8_t* line = out + y * length;
      const auto row = [&](int j) { return in + std::clamp(y + j, 0, height - 1) * length; };
      for (int64_t i = 0; i < length; i++) line[i] = box_sum<radius>(box, [&](int j) { return row(j)[i]; });
    }
  }
  std::memcpy(rgb, scratch, height * length);
}

}  // namespace

void sharpness(const uint8_t* in, int height, int width, float factor, uint8_t* out) {
  const int length = width * channels;
  // What is not smoothed is blended with itself.
  std::memcpy(out, in, size_t(height) * length);
  if (height < 3 || width < 3) return;
  constexpr float one = 1.0f / 13.0f, five = 5.0f / 13.0f;
  for (int y = 1; y < height - 1; y++) {
    const uint8_t *row = in + int64_t(y) * length, *above = row - length, *below = row + length;
    uint8_t* line = out + int64_t(y) * length;
    for (int i = channels; i < length - channels; i++) {
      float sum = 0.5f;
      sum += float(below[i - channels]) * one + float(below[i]) * one + float(below[i + channels]) * one;
      sum += float(row[i - channels]) * one + float(row[i]) * five + float(row[i + channels]) * one;
      sum += float(above[i - channels]) * one + float(above[i]) * one + float(above[i + channels]) * one;
      const int smooth = int(std::min(sum, 255.0f));
      line[i] = blend(smooth, row[i], factor);
    }
  }
}

void gaussian_blur(uint8_t* rgb, int height, int width, double radius, std::vector<uint8_t>& scratch) {
  const Box1D box = box_of(float(radius));
  const size_t length = size_t(width) * channels;
  scratch.resize(std::max(length * height, 2 * length));
  if (box.radius == 0) blur_three_times<0>(box, rgb, height, width, scratch.data());
  else if (box.radius == 1) blur_three_times<1>(box, rgb, height, width, scratch.data());
  else blur_three_times<-1>(box, rgb, height, width, scratch.data());
}
