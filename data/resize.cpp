// resize.cpp: two passes of fixed-point sums, the first one rounded to u8, as Pillow does it.
#include "data/resize.h"

#include <algorithm>
#include <cmath>

#include "engine/check.h"

namespace {

constexpr int precision = 22;  // bits behind the point of a weight

double bilinear(double x) { return std::max(0.0, 1 - std::abs(x)); }

double bicubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

// Weights of outputs [begin, begin + outputs) of an axis that goes from n to m. When shrinking, the kernel is widened
// to cover what falls together (antialiasing). Beyond the border it is cut off and the rest takes up its weight.
void make_axis(int n, int m, int begin, int outputs, Interpolation kind, Resizer::Axis& axis) {
  const double scale = double(n) / m, stretch = std::max(1.0, scale), shrink = 1 / stretch;
  const double support = (kind == Interpolation::bicubic ? 2 : 1) * stretch;
  axis.longest = std::min(n, int(std::ceil(support)) * 2 + 1);
  axis.first.resize(outputs);
  axis.count.resize(outputs);
  axis.weights.assign(size_t(outputs) * axis.longest, 0);
  std::vector<double> weight(axis.longest);

  for (int i = 0; i < outputs; i++) {
    const double centre = (begin + i + 0.5) * scale;
    const int low = std::max(0, int(centre - support + 0.5));
    const int high = std::min(n, int(centre + support + 0.5));
    double sum = 0;
    for (int j = low; j < high; j++) {
      const double x = (j - centre + 0.5) * shrink;
      sum += weight[j - low] = kind == Interpolation::bicubic ? bicubic(x) : bilinear(x);
    }
    axis.first[i] = low;
    axis.count[i] = high - low;
    for (int j = 0; j < high - low; j++) {
      const double w = sum != 0 ? weight[j] / sum : weight[j];
      axis.weights[size_t(i) * axis.longest + j] = int32_t(std::trunc(w * (1 << precision) + (w < 0 ? -0.5 : 0.5)));
    }
  }
}

uint8_t to_pixel(int32_t sum) { return uint8_t(std::clamp(sum >> precision, 0, 255)); }

constexpr int32_t half = 1 << (precision - 1);

constexpr int lanes = 16;  // rows that go through the first pass side by side, so that its sums are vectors

// in: [height, in_width, channels], out: [height, outputs, channels] with rows `stride` bytes apart.
void resize_columns(const uint8_t* in, int height, int in_width, int channels, const Resizer::Axis& axis,
                    std::vector<int32_t>& scratch, uint8_t* out, size_t stride) {
  const int length = in_width * channels, outputs = int(axis.first.size());
  scratch.resize(size_t(length) * lanes);
  int32_t* block = scratch.data();  // [in_width, channels, lanes]
  for (int y = 0; y < height; y += lanes) {
    const int rows = std::min(lanes, height - y);
    for (int r = 0; r < rows; r++) {
      const uint8_t* row = in + int64_t(y + r) * length;
      for (int x = 0; x < length; x++) block[size_t(x) * lanes + r] = row[x];
    }
    for (int i = 0; i < outputs * channels; i++) {
      const int output = i / channels, channel = i % channels;
      const int32_t* weight = &axis.weights[size_t(output) * axis.longest];
      const int32_t* taps = &block[(size_t(axis.first[output]) * channels + channel) * lanes];
      int32_t sum[lanes];
      std::fill_n(sum, lanes, half);
      for (int j = 0; j < axis.count[output]; j++, taps += channels * lanes) {
        for (int r = 0; r < lanes; r++) sum[r] += weight[j] * taps[r];
      }
      for (int r = 0; r < rows; r++) out[(y + r) * stride + i] = to_pixel(sum[r]);
    }
  }
}

// in: rows of `length` bytes, of which the first is row `begin` of the image.
void resize_rows(const uint8_t* in, int begin, int length, const Resizer::Axis& axis, std::vector<int32_t>& sums,
                 uint8_t* out, size_t stride) {
  sums.resize(length);
  int32_t* sum = sums.data();
  for (size_t i = 0; i < axis.first.size(); i++) {
    std::fill_n(sum, length, half);
    for (int j = 0; j < axis.count[i]; j++) {
      const int32_t weight = axis.weights[i * axis.longest + j];
      const uint8_t* row = in + int64_t(axis.first[i] + j - begin) * length;
      for (int x = 0; x < length; x++) sum[x] += weight * row[x];
    }
    uint8_t* line = out + i * stride;
    for (int x = 0; x < length; x++) line[x] = to_pixel(sum[x]);
  }
}

}  // namespace

void Resizer::operator()(const Image& source, Size size, const Box& window, Interpolation kind, uint8_t* out,
                         size_t stride) {
  check(window.top >= 0 && window.left >= 0 && window.top + window.height <= size.height &&
            window.left + window.width <= size.width,
        "[resize] the window must lie inside ", size.height, " x ", size.width);
  const int channels = source.channels;
  if (size.height == source.height && size.width == source.width) {
    for (int y = 0; y < window.height; y++) {
      const uint8_t* row = &source.pixels[(size_t(window.top + y) * source.width + window.left) * channels];
      std::copy(row, row + size_t(window.width) * channels, out + y * stride);
    }
    return;
  }
  make_axis(source.width, size.width, window.left, window.width, kind, columns_);
  make_axis(source.height, size.height, window.top, window.height, kind, rows_);
  const int begin = rows_.first.front(), end = rows_.first.back() + rows_.count.back();

  // Columns first, except for a very tall picture that shrinks: Pillow changes the order there, and rounding with it.
  if (source.height > 100 * int64_t(source.width) && size.height < source.height) {
    const size_t length = size_t(source.width) * channels;
    between_.resize(window.height * length);
    resize_rows(source.pixels.data() + begin * length, begin, int(length), rows_, sums_, between_.data(), length);
    resize_columns(between_.data(), window.height, source.width, channels, columns_, block_, out, stride);
    return;
  }
  const size_t length = size_t(window.width) * channels;
  between_.resize((end - begin) * length);
  const uint8_t* top = source.pixels.data() + size_t(begin) * source.width * channels;
  resize_columns(top, end - begin, source.width, channels, columns_, block_, between_.data(), length);
  resize_rows(between_.data(), begin, int(length), rows_, sums_, out, stride);
}
