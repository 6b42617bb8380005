// Philox streams: known answers are static_asserts in the header; here is what the streams promise.
#include "engine/random.h"

#include <doctest/doctest.h>

TEST_CASE("random: a stream is a function of its coordinates") {
  const RandomStream a(1, "blocks.3.drop_path"), b(1, "blocks.3.drop_path"), c(1, "blocks.4.drop_path"), d(2, "blocks.3.drop_path");
  CHECK(a.words(7, 5, 0) == b.words(7, 5, 0));
  CHECK(a.words(7, 5, 0) != c.words(7, 5, 0));
  CHECK(a.words(7, 5, 0) != d.words(7, 5, 0));
  CHECK(a.words(7, 5, 0) != a.words(8, 5, 0));
  CHECK(a.words(7, 5, 0) != a.words(7, 6, 0));
}

TEST_CASE("random: uniform and normal have their moments") {
  RandomSequence draw(RandomStream(0, "moments"), 0, 0);
  const int n = 200000;
  double u = 0, uu = 0, g = 0, gg = 0;
  for (int i = 0; i < n; i++) {
    const double x = draw.uniform(), y = draw.normal();
    u += x, uu += x * x, g += y, gg += y * y;
  }
  CHECK(u / n == doctest::Approx(0.5).epsilon(0.01));
  CHECK(uu / n == doctest::Approx(1.0 / 3).epsilon(0.01));
  CHECK(std::abs(g / n) < 0.01);
  CHECK(gg / n == doctest::Approx(1.0).epsilon(0.02));
}
