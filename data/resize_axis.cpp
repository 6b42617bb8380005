// resize_axis.cpp: Pillow's weights. When shrinking, the kernel is widened to cover what falls together (antialiasing). Beyond the
// border it is cut off and the rest takes up its weight.
#include "data/resize_axis.h"

#include <algorithm>
#include <cmath>

namespace {

double bilinear(double x) { return std::max(0.0, 1 - std::abs(x)); }

double bicubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

void put(int32_t& pair, int which, int32_t weight) { pair |= int32_t(uint32_t(uint16_t(weight)) << (16 * which)); }

}  // namespace

void make_axis(int n, Stretch from, int m, int begin, int outputs, Interpolation kind, bool mirrored, ResizeAxis& axis) {
  const double scale = from.length / m, stretch = std::max(1.0, scale), shrink = 1 / stretch;
  const double support = (kind == Interpolation::bicubic ? 2 : 1) * stretch;
  axis.first.resize(outputs);
  axis.count.resize(outputs);
  const auto centre_of = [&](int i) { return from.begin + (begin + (mirrored ? outputs - 1 - i : i) + 0.5) * scale; };
  int most = 0;
  for (int i = 0; i < outputs; i++) {
    axis.first[i] = std::max(0, int(centre_of(i) - support + 0.5));
    axis.count[i] = std::min(n, int(centre_of(i) + support + 0.5)) - axis.first[i];
    most = std::max(most, axis.count[i]);
  }
  axis.pairs = (most + 1) / 2;
  axis.high.assign(size_t(outputs) * axis.pairs, 0);
  axis.low.assign(size_t(outputs) * axis.pairs, 0);
  axis.weight.resize(most);
  std::vector<double>& weight = axis.weight;

  for (int i = 0; i < outputs; i++) {
    const double centre = centre_of(i);
    const int low = axis.first[i], high = low + axis.count[i];
    double sum = 0;
    for (int j = low; j < high; j++) {
      const double x = (j - centre + 0.5) * shrink;
      sum += weight[j - low] = kind == Interpolation::bicubic ? bicubic(x) : bilinear(x);
    }
    for (int j = 0; j < high - low; j++) {
      const double w = sum != 0 ? weight[j] / sum : weight[j];
      const int32_t fixed = int32_t(std::trunc(w * (1 << resize_precision) + (w < 0 ? -0.5 : 0.5)));
      const int32_t upper = (fixed + (1 << (resize_low_bits - 1))) >> resize_low_bits;
      put(axis.high[size_t(i) * axis.pairs + j / 2], j % 2, upper);
      put(axis.low[size_t(i) * axis.pairs + j / 2], j % 2, fixed - upper * (1 << resize_low_bits));
    }
  }
}
