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

}  // namespace

void make_axis(int n, int m, int begin, int outputs, Interpolation kind, bool mirrored, ResizeAxis& axis) {
  const double scale = double(n) / m, stretch = std::max(1.0, scale), shrink = 1 / stretch;
  const double support = (kind == Interpolation::bicubic ? 2 : 1) * stretch;
  axis.longest = std::min(n, int(std::ceil(support)) * 2 + 1);
  axis.first.resize(outputs);
  axis.count.resize(outputs);
  axis.high.resize(size_t(outputs) * axis.longest);
  axis.low.resize(size_t(outputs) * axis.longest);
  axis.weight.resize(axis.longest);
  std::vector<double>& weight = axis.weight;

  for (int i = 0; i < outputs; i++) {
    const double centre = (begin + (mirrored ? outputs - 1 - i : i) + 0.5) * scale;
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
      const int32_t fixed = int32_t(std::trunc(w * (1 << resize_precision) + (w < 0 ? -0.5 : 0.5)));
      const int32_t upper = (fixed + (1 << (resize_low_bits - 1))) >> resize_low_bits;
      axis.high[size_t(i) * axis.longest + j] = float(upper);
      axis.low[size_t(i) * axis.longest + j] = float(fixed - upper * (1 << resize_low_bits));
    }
  }
}
