// entropy_floor.h: how low the entropy of attention can be for logits of bounded length (Zhai et al. 2023, theorem 3.1).
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

// The least entropy, in nats, of a softmax over T logits whose l2 norm is at most `length`. With beta = exp(-length sqrt(T / (T-1))):
// log(1 + (T-1) beta) + length sqrt(T (T-1)) beta / (1 + (T-1) beta); it is reached. 0 for one token.
inline double entropy_floor(int64_t tokens, double length) {
  if (tokens < 2) return 0;
  const double t = double(tokens), beta = std::exp(-length * std::sqrt(t / (t - 1)));
  if (!(beta > 0)) return 0;
  return std::log1p((t - 1) * beta) + length * std::sqrt(t * (t - 1)) * beta / (1 + (t - 1) * beta);
}
