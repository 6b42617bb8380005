// drop_path.h: stochastic depth as a factor of a sample's branch: 0 with probability `rate`, else 1 / (1 - rate).
#pragma once
#include "engine/ops.h"

struct DropFactor {
  DropPath drop;
  int64_t rows_a_sample;
  HD float operator()(int64_t row) const { return drop.rate == 0 ? 1 : of_sample(row / rows_a_sample); }
  HD float of_sample(int64_t index) const {
    if (drop.rate == 0) return 1;
    const uint64_t sample = uint64_t(drop.first_sample + index);
    const float keep = float(1 - drop.rate);
    return uniform_from(drop.stream.words(drop.step, sample, 0)[0]) < keep ? 1 / keep : 0;
  }
};

inline DropFactor drop_factor(const DropPath& drop, const Tensor& x) {
  check(drop.rate >= 0 && drop.rate < 1, "[drop_path] rate must be in [0, 1), given ", drop.rate);
  return {drop, std::max<int64_t>(1, x.rows() / std::max<int64_t>(1, x.dim(0)))};
}
