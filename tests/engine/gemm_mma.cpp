// Products on the tensor cores with a functor behind them, on fibers, against plain sums: odd sizes, ends of tiles, three schedules.
#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "engine/gemm_mma.h"
#include "schedules.h"

namespace {

struct StoreWide {   // each place is written once: what is there before is NaN
  float* to;
  int n;
  void operator()(int row, int column, float (&value)[8]) const {
    for (int j = 0; j < 8; j++) {
      float& at = to[int64_t(row) * n + column + j];
      at = std::isnan(at) ? value[j] : INFINITY;
    }
  }
};

// Quarters from -1.5 to 1.5: products and their sums are exact in f32.
std::vector<bf16> numbers(int64_t count, int seed) {
  std::vector<bf16> all(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; i++) all[size_t(i)] = bf16(float((i * 7 + i / 13 * 5 + seed) % 13 - 6) / 4);
  return all;
}

template <bool transposed_b> double largest_error(int64_t m, int n, int k, bool terms, unsigned schedule) {
  const std::vector<bf16> a = numbers(m * k, 1), b = numbers(int64_t(n) * k, 5);
  std::vector<float> bias(static_cast<size_t>(n)), out(static_cast<size_t>(m * n), NAN);
  for (int j = 0; j < n; j++) bias[size_t(j)] = float(j % 9) - 4;
  const float scale = 0.5;
  fibers::schedule = schedule;
  gemm_mma::run<transposed_b>({a.data(), b.data(), terms ? &scale : nullptr, terms ? bias.data() : nullptr, int(m), n, k}, StoreWide{out.data(), n});
  fibers::schedule = 0;
  double worst = 0;
  for (int64_t i = 0; i < m; i++)
    for (int j = 0; j < n; j++) {
      float sum = 0;
      for (int p = 0; p < k; p++) sum += float(a[size_t(i * k + p)]) * float(b[size_t(transposed_b ? int64_t(j) * k + p : int64_t(p) * n + j)]);
      const float given = out[size_t(i * n + j)], wanted = terms ? scale * sum + bias[size_t(j)] : sum;
      worst = std::max(worst, std::isnan(given) ? double(INFINITY) : double(std::abs(given - wanted)));
    }
  return worst;
}

}  // namespace

TEST_CASE("fibers: products with a functor behind them are exact on quarters, whatever their size") {
  struct { int64_t m; int n, k; } sizes[] = {{1, 8, 8}, {8, 8, 200}, {33, 200, 8}, {7, 96, 96}, {130, 136, 40}, {129, 24, 72}, {300, 8, 104}};
  for (const auto& [m, n, k] : sizes) {
    INFO(m, " x ", n, " x ", k);
    for (const unsigned schedule : schedules) {
      CHECK(largest_error<true>(m, n, k, false, schedule) == 0);
      CHECK(largest_error<false>(m, n, k, true, schedule) == 0);
    }
    CHECK(largest_error<true>(m, n, k, true, 0) == 0);
    CHECK(largest_error<false>(m, n, k, false, 0) == 0);
  }
}

TEST_CASE("fibers: sizes that are no multiple of 16 bytes do not fit the tensor cores' product") {
  CHECK(gemm_mma::fits(1, 8, 96));
  CHECK_FALSE(gemm_mma::fits(0, 8, 96));
  CHECK_FALSE(gemm_mma::fits(3, 12, 96));
  CHECK_FALSE(gemm_mma::fits(3, 8, 100));
}
