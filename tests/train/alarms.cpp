// alarms: each is told when it begins, once, and a resumed run tells none twice.
#include "train/alarms.h"

#include <doctest/doctest.h>

#include <cmath>

namespace {

using Kinds = std::vector<std::string>;

Kinds kinds_of(const std::vector<Alarms::Event>& events) {
  Kinds kinds;
  for (const Alarms::Event& e : events) kinds.push_back(e.kind + " " + e.layer);
  return kinds;
}

Alarms alarms(double entropy = 0.1, double norm = 4) { return Alarms({entropy, norm}, {{"a.0", 2.0}, {"a.1", 2.0}}, {"w", "v"}); }

}  // namespace

TEST_CASE("alarms: a head collapses, stays, recovers and collapses again") {
  Alarms watch = alarms();
  CHECK(watch.row({1.5, 1.5}, {1, 1}).empty());
  CHECK(kinds_of(watch.row({1.5, 0.19}, {1, 1})) == Kinds{"entropy_collapse a.1"});
  CHECK(watch.row({1.5, 0.01}, {1, 1}).empty());
  CHECK(watch.row({1.5, 0.3}, {1, 1}).empty());   // noise about the limit
  CHECK(kinds_of(watch.row({0.0, 0.5}, {1, 1})) == Kinds{"entropy_collapse a.0", "entropy_recovered a.1"});
  CHECK(kinds_of(watch.row({0.0, 0.1}, {1, 1})) == Kinds{"entropy_collapse a.1"});
  Alarms silent = alarms(0, 0);
  CHECK(silent.row({0, 0}, {1, 1}).empty());
  CHECK(silent.row({0, 0}, {1e9, 1}).empty());
}

TEST_CASE("alarms: a spectral norm explodes within a hundred rows, not over thousands") {
  Alarms watch = alarms();
  CHECK(watch.row({1, 1}, {0.001, 2}).empty());
  CHECK(watch.row({1, 1}, {0.9, 7.9}).empty());   // 900 times, but still small; 3.95 times
  CHECK(kinds_of(watch.row({1, 1}, {1.1, 8.1})) == Kinds{"norm_explosion w", "norm_explosion v"});
  CHECK(watch.row({1, 1}, {1.2, 20}).empty());
  Alarms slow = alarms();
  double norm = 1;
  for (int i = 0; i < 2000; i++, norm *= 1.01) CHECK(slow.row({1, 1}, {norm, 1}).empty());   // 2.7 times in a hundred
}

TEST_CASE("alarms: a resumed run goes on as if it had not stopped") {
  for (const int stop : {1, 5, 120, 150}) {
    CAPTURE(stop);
    Alarms whole = alarms(), first = alarms(), second = alarms();
    CsvData events, norms;
    events.columns = {{"kind", {}, {}}, {"layer", {}, {}}};
    norms.columns = {{"sigma.w", {}, {}}, {"sigma.v", {}, {}}};
    for (int i = 0; i < 260; i++) {
      const std::vector<double> entropies{1 + std::sin(i / 9.0), 1}, sigmas{std::exp(2 * std::sin(i / 40.0)), 1.0 + i / 50.0};
      if (i == stop) second.restore(events, norms);
      const Kinds expected = kinds_of(whole.row(entropies, sigmas));
      const std::vector<Alarms::Event> found = (i < stop ? first : second).row(entropies, sigmas);
      CHECK(kinds_of(found) == expected);
      for (const Alarms::Event& e : found) {
        events.columns[0].texts.push_back(e.kind);
        events.columns[1].texts.push_back(e.layer);
        events.rows++;
      }
      norms.columns[0].numbers.push_back(sigmas[0]);
      norms.columns[1].numbers.push_back(sigmas[1]);
      norms.rows++;
    }
    CHECK(events.rows > 4);
  }
}
