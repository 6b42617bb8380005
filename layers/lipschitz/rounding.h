// rounding.h: how far a sum of products in f64 can be off.
#pragma once
#include <cstdint>

namespace rounding {

inline constexpr double u = 0x1p-53;

// A sum of k products, in any order and with or without fused multiply-add, is off by at most gamma(k) times the sum of the absolute
// products (Higham, Accuracy and Stability of Numerical Algorithms, 3.1).
inline double gamma(int64_t k) { return double(k) * u / (1 - double(k) * u); }

}  // namespace rounding
