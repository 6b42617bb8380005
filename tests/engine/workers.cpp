// The workers do every task once, and hand on the exception of the first task that threw.
#include "engine/workers.h"

#include <doctest/doctest.h>
#include <stdexcept>

TEST_CASE("workers: every task runs once, whatever the number of threads") {
  for (const int threads : {1, 2, 5}) {
    Workers workers(threads);
    for (int round = 0; round < 50; round++) {
      std::vector<int> count(37, 0);
      workers.run(37, [&](int64_t i) { count[i]++; });
      CHECK(count == std::vector<int>(37, 1));
    }
  }
}

TEST_CASE("workers: the first task that threw is the one that is reported, and the rest still run") {
  Workers workers(3);
  std::vector<int> count(20, 0);
  const auto task = [&](int64_t i) {
    count[i]++;
    if (i == 7 || i == 3 || i == 12) throw std::runtime_error(std::to_string(i));
  };
  CHECK_THROWS_WITH(workers.run(20, task), "3");
  CHECK(count == std::vector<int>(20, 1));
  workers.run(1, [&](int64_t) { count[0]++; });   // and it can be used again
  CHECK(count[0] == 2);
}
