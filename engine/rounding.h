// rounding.h: how far a sum of products in f64 can be off.
#pragma once
#include <cstdint>

#include "engine/host_device.h"

namespace rounding {

inline constexpr double u = 0x1p-53;

// A sum of k products, in any order and with or without fused multiply-add, is off by at most gamma(k) times the sum of the absolute
// products (Higham, Accuracy and Stability of Numerical Algorithms, 3.1). unit: 2^-53 for f64, 2^-24 for f32.
HD double gamma(int64_t k, double unit = u) { return double(k) * unit / (1 - double(k) * unit); }

}  // namespace rounding
