// normality.h: is a series of numbers drawn from a normal distribution? The test of D'Agostino and Pearson, and PNAC, the share of
// channels that pass it (Unified Normalization): high where a channel's statistic fluctuates mildly, low where outliers come.
#pragma once
#include <span>

#include "engine/tensor.h"

struct Normality {
  double skewness = 0, kurtosis = 0;       // m3 / m2^1.5 and m4 / m2^2
  double z_skewness = 0, z_kurtosis = 0;   // standard normal, where the series is
  double statistic = 0, p = 0;             // z_skewness^2 + z_kurtosis^2, and the chance of more; NaN for a constant series
};

// Equal to scipy.stats.normaltest. At least 8 numbers; fewer than 20 make a poor test.
Normality normality_test(std::span<const double> series);

// Percentage of the channels of history [L, C] whose series has p > 0.05. A constant channel is not normal.
double pnac(const Tensor& history);
