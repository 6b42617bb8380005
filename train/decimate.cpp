// decimate.cpp: buckets of equal numbers of rows.
#include "train/decimate.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace {

// f(begin, end) for each of `count` buckets of rows [first, last).
template <class F> void for_buckets(std::size_t first, std::size_t last, std::size_t count, F&& f) {
  for (std::size_t i = 0; i < count; i++) {
    f(first + i * (last - first) / count, first + (i + 1) * (last - first) / count);
  }
}

// The first and last row alone, two points for each bucket between them.
template <class F> std::vector<double> thin(const std::vector<double>& values, std::size_t most, F&& two_points) {
  if (values.size() <= most) return values;
  std::vector<double> out{values.front()};
  for_buckets(1, values.size() - 1, (most - 2) / 2, [&](std::size_t begin, std::size_t end) {
    const auto [first, second] = two_points(begin, end);
    out.push_back(first);
    out.push_back(second);
  });
  out.push_back(values.back());
  return out;
}

using Points = std::pair<double, double>;

}  // namespace

std::vector<double> thin_steps(const std::vector<double>& steps, std::size_t most) {
  return thin(steps, most,
              [&](std::size_t begin, std::size_t end) { return Points(steps[begin], steps[(begin + end) / 2]); });
}

std::vector<double> thin_extremes(const std::vector<double>& values, std::size_t most) {
  return thin(values, most, [&](std::size_t begin, std::size_t end) {
    std::size_t low = end, high = end, odd = end;
    for (std::size_t i = begin; i < end; i++) {
      if (!std::isfinite(values[i])) {
        if (odd == end) odd = i;
        continue;
      }
      if (low == end || values[i] < values[low]) low = i;
      if (high == end || values[i] > values[high]) high = i;
    }
    if (high == end) return Points(values[odd], values[odd]);
    const std::size_t other = odd == end ? low : odd;
    return Points(values[std::min(other, high)], values[std::max(other, high)]);
  });
}

std::vector<double> thin_means(const std::vector<double>& values, std::size_t most) {
  return thin(values, most, [&](std::size_t begin, std::size_t end) {
    double sum = 0, count = 0;
    for (std::size_t i = begin; i < end; i++) {
      if (std::isfinite(values[i])) sum += values[i], count++;
    }
    const double mean = count > 0 ? sum / count : values[begin];
    return Points(mean, mean);
  });
}

std::vector<double> bucket_steps(const std::vector<double>& steps, std::size_t most) {
  if (steps.size() <= most) return steps;
  std::vector<double> out;
  for_buckets(0, steps.size(), most, [&](std::size_t begin, std::size_t) { out.push_back(steps[begin]); });
  return out;
}

std::vector<double> bucket_lowest(const std::vector<double>& values, std::size_t most) {
  if (values.size() <= most) return values;
  std::vector<double> out;
  for_buckets(0, values.size(), most, [&](std::size_t begin, std::size_t end) {
    double lowest = values[begin];
    for (std::size_t i = begin; i < end; i++) {
      if (std::isnan(values[i]) || values[i] < lowest) lowest = values[i];
    }
    out.push_back(lowest);
  });
  return out;
}
