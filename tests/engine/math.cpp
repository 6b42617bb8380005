// Elementary functions and the bf16 type against long double, over their ranges and at their limits.
#include <doctest/doctest.h>

#include "engine/math.h"

#include <cmath>
#include <limits>

#include "engine/dtype.h"

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

// The distance of a float from an exact value, in units of the exact value's last place.
double ulps(float given, long double exact) {
  const float near = float(exact);
  const float place = std::nextafter(std::abs(near), infinity) - std::abs(near);
  return double(std::abs((long double)(given)-exact) / place);
}

long double exact_cdf(double x) { return 0.5L * erfcl(-(long double)(x) / sqrtl(2.0L)); }
long double exact_pdf(double x) { return expl(-0.5L * x * x) / sqrtl(2 * acosl(-1.0L)); }

}  // namespace

TEST_CASE("math: fast_exp is within 2 units in the last place") {
  double worst = 0;
  float worst_at = 0;
  for (int i = 0; i <= 400000; i++) {
    const float x = float(-87.3 + 176.0 * i / 400000);
    const double u = ulps(fast_exp(x), expl(x));
    if (u > worst) worst = u, worst_at = x;
  }
  CHECK_MESSAGE(worst <= 2, "fast_exp(", worst_at, ") is off by ", worst, " ULP");
}

TEST_CASE("math: fast_exp at its limits") {
  CHECK(fast_exp(0.0f) == 1);
  CHECK(fast_exp(-0.0f) == 1);
  CHECK(fast_exp(-88.0f) == 0);
  CHECK(fast_exp(-infinity) == 0);
  CHECK(fast_exp(-3e38f) == 0);
  CHECK(fast_exp(89.0f) == infinity);
  CHECK(fast_exp(infinity) == infinity);
  CHECK(std::isfinite(fast_exp(88.7f)));
  CHECK(std::isnan(fast_exp(not_a_number)));
  CHECK(fast_exp(1.0) == std::exp(1.0));
}

TEST_CASE("math: the normal distribution and gelu") {
  double tail = 0, far_tail = 0, cdf = 0, gelu = 0, slope = 0, density = 0;
  for (int i = 0; i <= 200000; i++) {
    const float x = float(-12 + 24.0 * i / 200000);
    const long double p = exact_cdf(x), g = exact_pdf(x);
    cdf = std::max(cdf, double(std::abs(normal_cdf(x) - p)));
    if (x <= 0) tail = std::max(tail, double(std::abs(normal_tail(-x, float(expl(-0.5L * x * x))) - p) / p));
    // With an exponential of its own the tail also pays for the rounding of x^2/2, a number of that size.
    if (x <= 0) far_tail = std::max(far_tail, double(std::abs(normal_cdf(x) - p) / p / (1 + 0.5L * x * x)));
    gelu = std::max(gelu, double(std::abs(gelu_value(x) - x * p) / std::max(1.0f, std::abs(x))));
    slope = std::max(slope, double(std::abs(gelu_slope(x) - (p + x * g))));
    density = std::max(density, double(std::abs(normal_pdf(x) - g)));
  }
  CHECK(tail < 5.1e-7);
  CHECK(far_tail < 5.1e-7);
  CHECK(cdf < 2.2e-7);
  CHECK(gelu < 2e-7);
  CHECK(slope < 3e-7);
  CHECK(density < 1e-7);
}

TEST_CASE("math: the normal distribution and gelu in f64") {
  for (const double x : {-30.0, -6.0, -1.5, -1e-9, 0.0, 0.3, 2.0, 8.0}) {
    CHECK(normal_cdf(x) == doctest::Approx(double(exact_cdf(x))).epsilon(1e-14));
    CHECK(gelu_value(x) == doctest::Approx(double(x * exact_cdf(x))).epsilon(1e-14));
    CHECK(gelu_slope(x) == doctest::Approx(double(exact_cdf(x) + x * exact_pdf(x))).epsilon(1e-14));
  }
}

TEST_CASE("math: the normal distribution and gelu at their limits") {
  CHECK(normal_cdf(0.0f) == doctest::Approx(0.5).epsilon(1e-7));
  CHECK(normal_cdf(20.0f) == 1);
  CHECK(normal_cdf(-20.0f) == 0);
  CHECK(normal_cdf(infinity) == 1);
  CHECK(normal_cdf(-infinity) == 0);
  CHECK(std::isnan(normal_cdf(not_a_number)));
  CHECK(gelu_value(0.0f) == 0);
  CHECK(gelu_value(50.0f) == 50);
  CHECK(gelu_value(-50.0f) == 0);
  CHECK(gelu_value(1e30f) == 1e30f);
  CHECK(gelu_value(-1e30f) == 0);
  CHECK(gelu_slope(1e30f) == 1);
  CHECK(gelu_slope(-1e30f) == 0);
  CHECK(std::isnan(gelu_value(not_a_number)));
  CHECK(std::isnan(gelu_slope(not_a_number)));
}

TEST_CASE("bf16: all 65536 values come back") {
  for (uint32_t bits = 0; bits < 65536; bits++) {
    bf16 b;
    b.bits = uint16_t(bits);
    const float f = b;
    const bf16 again(f);
    if (std::isnan(f)) CHECK(std::isnan(float(again)));
    else CHECK(again.bits == b.bits);
  }
}

TEST_CASE("bf16: between two neighbours the nearer wins, a tie goes to the even one") {
  for (uint32_t bits = 0; bits < 0x7f80; bits++) {   // all finite magnitudes; the last rounds up to infinity
    const uint32_t even = (bits & 1) ? bits + 1 : bits;
    const auto rounds_to = [](uint32_t word) { return uint32_t(bf16(std::bit_cast<float>(word)).bits); };
    CHECK(rounds_to((bits << 16) + 0x7fff) == bits);
    CHECK(rounds_to((bits << 16) + 0x8000) == even);
    CHECK(rounds_to((bits << 16) + 0x8001) == bits + 1);
    CHECK(rounds_to(0x80000000u + (bits << 16) + 0x8000) == 0x8000 + even);
  }
}

TEST_CASE("bf16: NaN stays NaN, infinity stays infinity") {
  for (const uint32_t word : {0x7f800001u, 0x7fffffffu, 0xff800001u, 0x7fc00000u}) CHECK(std::isnan(float(bf16(std::bit_cast<float>(word)))));
  CHECK(float(bf16(infinity)) == infinity);
  CHECK(float(bf16(-infinity)) == -infinity);
  CHECK(float(bf16(3.4e38f)) == infinity);
}
