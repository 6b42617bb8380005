// normality.cpp: skewness and kurtosis, each turned into a number that is standard normal for normal series (D'Agostino 1970,
// Anscombe and Glynn 1983).
#include "layers/normality.h"

#include <cmath>
#include <limits>
#include <vector>

namespace {

double skewness_score(double skewness, double n) {
  double y = skewness * std::sqrt((n + 1) * (n + 3) / (6 * (n - 2)));
  const double beta = 3 * (n * n + 27 * n - 70) * (n + 1) * (n + 3) / ((n - 2) * (n + 5) * (n + 7) * (n + 9));
  const double w = -1 + std::sqrt(2 * (beta - 1));
  const double delta = 1 / std::sqrt(0.5 * std::log(w)), alpha = std::sqrt(2 / (w - 1));
  if (y == 0) y = 1;   // as SciPy does
  return delta * std::log(y / alpha + std::sqrt(y / alpha * (y / alpha) + 1));
}

double kurtosis_score(double kurtosis, double n) {
  const double expected = 3 * (n - 1) / (n + 1);
  const double variance = 24 * n * (n - 2) * (n - 3) / ((n + 1) * (n + 1) * (n + 3) * (n + 5));
  const double u = (kurtosis - expected) / std::sqrt(variance);
  const double root_beta = 6 * (n * n - 5 * n + 2) / ((n + 7) * (n + 9)) * std::sqrt(6 * (n + 3) * (n + 5) / (n * (n - 2) * (n - 3)));
  const double a = 6 + 8 / root_beta * (2 / root_beta + std::sqrt(1 + 4 / (root_beta * root_beta)));
  const double d = 1 + u * std::sqrt(2 / (a - 4));
  if (d == 0) return std::numeric_limits<double>::quiet_NaN();
  const double root = std::copysign(std::cbrt((1 - 2 / a) / std::abs(d)), d);
  return (1 - 2 / (9 * a) - root) / std::sqrt(2 / (9 * a));
}

}  // namespace

Normality normality_test(std::span<const double> series) {
  check(series.size() >= 8, "[normality] at least 8 numbers are needed, given ", series.size());
  const double n = double(series.size());
  double mean = 0, m2 = 0, m3 = 0, m4 = 0;
  for (const double v : series) mean += v / n;
  for (const double v : series) {
    const double d = v - mean;
    m2 += d * d / n;
    m3 += d * d * d / n;
    m4 += d * d * d * d / n;
  }
  const double resolution = 1e-15 * mean;
  if (!(m2 > resolution * resolution)) {   // constant, or not finite
    const double nan = std::numeric_limits<double>::quiet_NaN();
    return {nan, nan, nan, nan, nan, nan};
  }
  Normality out{.skewness = m3 / std::pow(m2, 1.5), .kurtosis = m4 / (m2 * m2)};
  out.z_skewness = skewness_score(out.skewness, n);
  out.z_kurtosis = kurtosis_score(out.kurtosis, n);
  out.statistic = out.z_skewness * out.z_skewness + out.z_kurtosis * out.z_kurtosis;
  out.p = std::exp(-out.statistic / 2);   // the tail of chi-square with two degrees of freedom
  return out;
}

double pnac(const Tensor& history) {
  check(history.shape().rank() == 2 && history.dim(1) > 0, "[pnac] the history must be [steps, channels], given ", history.shape());
  const int64_t steps = history.dim(0), channels = history.dim(1);
  const std::vector<double> all = history.values();
  std::vector<double> series(steps);
  int64_t normal = 0;
  for (int64_t c = 0; c < channels; c++) {
    for (int64_t t = 0; t < steps; t++) series[t] = all[t * channels + c];
    normal += normality_test(series).p > 0.05;
  }
  return 100.0 * double(normal) / double(channels);
}
