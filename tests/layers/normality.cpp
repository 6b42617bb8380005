// normality: equal to SciPy's normaltest, and what PNAC makes of it.
#include "layers/normality.h"

#include <doctest/doctest.h>

#include <cmath>
#include <functional>

#include "engine/random.h"

namespace {

std::vector<double> series(int n, const std::function<double(double)>& f) {
  std::vector<double> out(n);
  for (int i = 0; i < n; i++) out[i] = f(i + 1);
  return out;
}

void check_test(const std::vector<double>& values, const Normality& wanted) {
  const Normality given = normality_test(values);
  const auto close = [](double g, double w) { CHECK(std::abs(g - w) <= 1e-9 * std::abs(w)); };
  close(given.skewness, wanted.skewness);
  close(given.kurtosis, wanted.kurtosis);
  close(given.z_skewness, wanted.z_skewness);
  close(given.z_kurtosis, wanted.z_kurtosis);
  close(given.statistic, wanted.statistic);
  close(given.p, wanted.p);
}

}  // namespace

TEST_CASE("normality: equal to SciPy's normaltest") {
  check_test(series(8, [](double i) { return i * i; }),
             {0.5464170046, 1.990092037, 0.9168130434, -0.3861588397, 0.989664806, 0.6096730781});
  check_test(series(20, [](double i) { return std::sin(i) + 0.5 * std::cos(3 * i); }),
             {-0.05026048841, 2.011286199, -0.1129528979, -1.091247821, 1.203580165, 0.5478300969});
  check_test(series(150, [](double i) { return std::exp(std::sin(i)); }),
             {0.5009098992, 1.739054977, 2.492313221, -9.234446445, 91.48662633, 1.361229987e-20});
  check_test(series(150, [](double i) { return (std::sin(i) + std::sin(1.7 * i) + std::sin(2.9 * i) + std::sin(4.3 * i)) / 2; }),
             {-0.4031108888, 2.526762949, -2.038203589, -1.321355312, 5.90025373, 0.0523330663});
  // SciPy's quirk: an exactly symmetric series scores as if y were 1.
  CHECK(normality_test(series(8, [](double i) { return i; })).z_skewness == doctest::Approx(1.01080486).epsilon(1e-8));
}

TEST_CASE("normality: series that say nothing") {
  CHECK(std::isnan(normality_test(std::vector<double>(20, 3.5)).p));
  CHECK(std::isnan(normality_test(series(20, [](double i) { return i == 4 ? INFINITY : i; })).p));
  CHECK_THROWS_WITH_AS(normality_test(std::vector<double>(7, 1)), doctest::Contains("at least 8 numbers"), Error);
}

TEST_CASE("normality: pnac is the share of channels that look normal") {
  constexpr int64_t steps = 150, channels = 400;
  RandomSequence random(RandomStream(3, "pnac"), 0, 0);
  std::vector<double> normal(steps * channels), mixed(steps * channels);
  for (double& v : normal) v = 2 + 0.1 * random.normal();
  for (int64_t i = 0; i < steps * channels; i++) {
    const bool now = i / channels == 70;
    switch (i % 4) {   // a quarter of the channels each
      case 0: mixed[i] = normal[i]; break;
      case 1: mixed[i] = 1; break;
      case 2: mixed[i] = now ? 10 : normal[i]; break;   // one outlier
      case 3: mixed[i] = std::exp(10 * normal[i]); break;
    }
  }
  const double whole = pnac(Tensor::from({steps, channels}, normal, DType::f64));
  CHECK(whole > 90);   // 95 but for chance: the test is wrong in one case of twenty
  CHECK(whole < 98);
  const double quarter = pnac(Tensor::from({steps, channels}, mixed, DType::f64));
  CHECK(quarter > 20);
  CHECK(quarter <= 25);
  CHECK_THROWS_AS(pnac(Tensor::zeros({20}, DType::f64)), Error);
}
