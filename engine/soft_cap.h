// soft_cap.h: how strong the spectral soft cap must be (Newhouse et al. 2025): p(x) = (x - a x^3) + a (x - a x^3)^3.
#pragma once
#include "engine/host_device.h"

// The a for which p(k) = sigma_max: a weight at sigma_max comes back to it if decay and step take it to k at most. It is 0 if k <= sigma_max. Where
// k > sigma_max / 0.7654 this would let values below k out above sigma_max; then it is as much larger as it takes, up to a k^2 = 1, which serves until
// k = 2.26 sigma_max.
//
// With u = a k^2 the condition p(k) = sigma_max reads 3 u^2 - 3 u^3 + u^4 = (k - sigma_max) / k, and the left side rises on [0, 1]. p
// rises on [0, k] only if u <= 1/3; else its inner maximum is (31/27)(2/3) k / sqrt(3 u), which must not be above sigma_max either.
HD double soft_cap_strength(double sigma_max, double k) {
  if (!(k > sigma_max)) return 0;
  const double target = (k - sigma_max) / k;
  double low = 0, high = 1;
  for (int i = 0; i < 200 && low < high; i++) {
    const double u = 0.5 * (low + high);
    if (u == low || u == high) break;
    (3 * u * u - 3 * u * u * u + u * u * u * u < target ? low : high) = u;
  }
  double u = high;
  if (u > 1.0 / 3) {
    const double inner = 31.0 / 27 * 2 / 3 * k / sigma_max, least = inner * inner / 3;
    if (least > u) u = least;
    if (u > 1) u = 1;
  }
  return u / (k * k);
}
