// color_ops.cpp: loops over bytes that the compiler turns into vectors, and lookups where a table depends on the histogram.
#include "data/color_ops.h"

#include <array>

namespace {

constexpr int channels = 3;
using Table = std::array<uint8_t, 256>;
using Histogram = std::array<int64_t, 256>;

// Two counters a value, taken in turns: neighbours are often equal, and a counter just written is slow to read.
std::array<Histogram, channels> histograms(const uint8_t* rgb, int64_t pixels) {
  std::array<std::array<std::array<uint32_t, 256>, channels>, 2> counts{};
  for (int64_t i = 0; i < pixels; i++)
    for (int c = 0; c < channels; c++) counts[i % 2][c][rgb[i * channels + c]]++;
  std::array<Histogram, channels> sums;
  for (int c = 0; c < channels; c++)
    for (int v = 0; v < 256; v++) sums[c][v] = int64_t(counts[0][c][v]) + counts[1][c][v];
  return sums;
}

template <class MakeTable> void look_up(uint8_t* rgb, int64_t pixels, MakeTable make) {
  const std::array<Histogram, channels> counts = histograms(rgb, pixels);
  const Table red = make(counts[0]), green = make(counts[1]), blue = make(counts[2]);
  for (int64_t i = 0; i < pixels; i++, rgb += channels) {
    rgb[0] = red[rgb[0]];
    rgb[1] = green[rgb[1]];
    rgb[2] = blue[rgb[2]];
  }
}

Table identity() {
  Table table;
  for (int v = 0; v < 256; v++) table[v] = uint8_t(v);
  return table;
}

struct Hsv {
  uint8_t hue, saturation, value;
};

// Pillow cuts off to whole numbers and computes partly in f32, partly in f64.
Hsv to_hsv(int red, int green, int blue) {
  const int high = std::max({red, green, blue}), low = std::min({red, green, blue});
  if (high == low) return {0, 0, uint8_t(high)};
  const float spread = float(high - low);
  const float below[] = {float(high - red) / spread, float(high - green) / spread, float(high - blue) / spread};
  const float sixths = red == high     ? below[2] - below[1]
                       : green == high ? float(2.0 + below[0] - below[2])
                                       : float(4.0 + below[1] - below[0]);
  const double turns = sixths / 6.0 + 1.0;   // from 5/6 to 11/6
  const float hue = float(turns >= 1 ? turns - 1 : turns), saturation = spread / float(high);
  return {uint8_t(int(hue * 255.0)), uint8_t(int(saturation * 255.0)), uint8_t(high)};
}

// Each hue's sixth of the circle and the place in it.
struct Hues {
  std::array<uint8_t, 256> sixth;
  std::array<float, 256> place;
  Hues() {
    for (int hue = 0; hue < 256; hue++) {
      const double sixths = hue * 6.0 / 255.0;
      sixth[hue] = uint8_t(int(sixths) % 6);
      place[hue] = float(sixths - int(sixths));
    }
  }
};

int rounded(double positive) { return int(positive + 0.5); }

void to_rgb(const Hues& hues, const Hsv& hsv, uint8_t* rgb) {
  if (hsv.saturation == 0) {
    std::fill_n(rgb, channels, hsv.value);
    return;
  }
  const float saturation = float(hsv.saturation / 255.0), place = hues.place[hsv.hue];
  const double value = hsv.value;
  const uint8_t levels[] = {hsv.value, uint8_t(rounded(value * (1.0 - saturation * (1.0 - place)))),
                            uint8_t(rounded(value * (1.0 - double(saturation * place)))), uint8_t(rounded(value * (1.0 - saturation)))};
  enum { highest, rising, falling, lowest };
  static constexpr uint8_t colour[6][channels] = {{highest, rising, lowest}, {falling, highest, lowest}, {lowest, highest, rising},
                                                  {lowest, falling, highest}, {rising, lowest, highest}, {highest, lowest, falling}};
  for (int c = 0; c < channels; c++) rgb[c] = levels[colour[hues.sixth[hsv.hue]][c]];
}

template <class F> void each_byte(uint8_t* rgb, int64_t pixels, F f) {
  for (int64_t i = 0; i < pixels * channels; i++) rgb[i] = f(rgb[i]);
}

}  // namespace

void autocontrast(uint8_t* rgb, int64_t pixels) {
  look_up(rgb, pixels, [](const Histogram& counts) {
    int low = 0, high = 255;
    while (low < 255 && counts[low] == 0) low++;
    while (high > 0 && counts[high] == 0) high--;
    if (high <= low) return identity();
    const double scale = 255.0 / (high - low), offset = -low * scale;
    Table table;
    for (int v = 0; v < 256; v++) table[v] = uint8_t(std::clamp(int(v * scale + offset), 0, 255));
    return table;
  });
}

void equalize(uint8_t* rgb, int64_t pixels) {
  look_up(rgb, pixels, [&](const Histogram& counts) {
    const int64_t last = *std::find_if(counts.rbegin(), counts.rend(), [](int64_t n) { return n > 0; });
    const int64_t step = (pixels - last) / 255;
    if (step == 0) return identity();
    Table table;
    int64_t n = step / 2;
    for (int v = 0; v < 256; v++) {
      table[v] = uint8_t(std::min<int64_t>(255, n / step));
      n += counts[v];
    }
    return table;
  });
}

void invert(uint8_t* rgb, int64_t pixels) {
  each_byte(rgb, pixels, [](uint8_t v) { return uint8_t(255 - v); });
}

void posterize(uint8_t* rgb, int64_t pixels, int bits) {
  const uint8_t mask = uint8_t(256 - (1 << (8 - bits)));
  each_byte(rgb, pixels, [mask](uint8_t v) { return uint8_t(v & mask); });
}

void solarize(uint8_t* rgb, int64_t pixels, int threshold) {
  if (threshold > 255) return;
  const uint8_t from = uint8_t(threshold);
  each_byte(rgb, pixels, [from](uint8_t v) { return v < from ? v : uint8_t(255 - v); });
}

void solarize_add(uint8_t* rgb, int64_t pixels, int add) {
  // Below 128 and with at most 128 added nothing exceeds 255.
  const uint8_t by = uint8_t(std::min(add, 128));
  each_byte(rgb, pixels, [by](uint8_t v) { return v < 128 ? uint8_t(v + by) : v; });
}

void brightness(uint8_t* rgb, int64_t pixels, float factor) {
  each_byte(rgb, pixels, [factor](uint8_t v) { return blend(0, v, factor); });
}

void contrast(uint8_t* rgb, int64_t pixels, float factor) {
  int64_t sum = 0;
  for (int64_t i = 0; i < pixels; i++) sum += gray_of(rgb[i * channels], rgb[i * channels + 1], rgb[i * channels + 2]);
  const int mean = int(double(sum) / double(pixels) + 0.5);
  each_byte(rgb, pixels, [=](uint8_t v) { return blend(mean, v, factor); });
}

void color(uint8_t* rgb, int64_t pixels, float factor) {
  for (int64_t i = 0; i < pixels; i++) {
    uint8_t* pixel = rgb + i * channels;
    const int gray = gray_of(pixel[0], pixel[1], pixel[2]);
    for (int c = 0; c < channels; c++) pixel[c] = blend(gray, pixel[c], factor);
  }
}

void shift_hue(uint8_t* rgb, int64_t pixels, double turn) {
  static const Hues hues;
  const int shift = int(255 * turn);
  for (int64_t i = 0; i < pixels; i++, rgb += channels) {
    Hsv hsv = to_hsv(rgb[0], rgb[1], rgb[2]);
    hsv.hue = uint8_t(hsv.hue + shift);
    to_rgb(hues, hsv, rgb);
  }
}
