// A run on a GPU, here on fibers where there is none: the CPU's numbers, the same recorded or not, the same resumed; and what it does not have
// is refused.
#include <cmath>

#include "engine/capture_rules.h"
#include "tiny_run.h"
#include "train/csv_read.h"

namespace {

using Set = std::vector<std::string>;

// The random parts, an average and a clip that bites, all in six steps.
Set six_steps(Set more) {
  Set all{"schedule.epochs=2", "data.batch_size=14", "ema.decay=0.9", "optimizer.clip_grad=0.5", "run.shards=1",
          "ledger.measure_samples=0", "ledger.certify_every=0"};
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

// Relative to the largest number of a column, over all numbers that both tables have.
double table_difference(const fs::path& a, const fs::path& b) {
  const std::vector<std::string> words{"bound_kind", "bound_blame"};
  const CsvData x = read_csv(a, words), y = read_csv(b, words);
  REQUIRE(x.rows == y.rows);
  REQUIRE(x.rows > 0);
  double most = 0;
  for (const CsvColumn& column : x.columns) {
    if (column.name == "images_per_s" || column.name == "data_wait") continue;
    const std::vector<double>&left = column.numbers, &right = y.numbers(column.name);
    REQUIRE(right.size() == left.size());
    double size = 0;
    for (const double v : left)
      if (std::isfinite(v)) size = std::max(size, std::abs(v));
    for (size_t i = 0; i < left.size(); i++) {
      REQUIRE(std::isfinite(left[i]) == std::isfinite(right[i]));
      if (std::isfinite(left[i]) && size > 0) most = std::max(most, std::abs(left[i] - right[i]) / size);
    }
  }
  return most;
}

}  // namespace

TEST_CASE("device: a run on the GPU gives the tables of a run on the CPU") {
  const ScratchFolder scratch;
  write_tiny_images(scratch / "data");
  struct Case {
    const char* dtype;
    double tolerance;
  };
  for (const auto& [dtype, tolerance] : {Case{"f64", 1e-6}, Case{"f32", 1e-5}, Case{"bf16", 0.05}}) {   // f64: rates, vectors of norms and losses are f32
    CAPTURE(std::string(dtype));
    const Set set = six_steps({str("run.dtype=", dtype)});
    Set there = set;
    there.push_back("run.device=cuda");
    const fs::path cpu = scratch / str("cpu-", dtype), cuda = scratch / str("cuda-", dtype);
    REQUIRE(train(tiny_recipe(scratch / "data", set), cpu) == 0);
    REQUIRE(train(tiny_recipe(scratch / "data", there), cuda) == 0);
    for (const char* table : {"steps.csv", "lipschitz.csv", "entropy.csv", "entropy_floor.csv", "norms.csv", "epochs.csv"}) {
      CAPTURE(std::string(table));
      if (std::string(dtype) == "bf16" && std::string(table) == "epochs.csv") continue;   // one of 15 images more or less
      const double difference = table_difference(cpu / table, cuda / table);
      CHECK(difference < tolerance);
    }
  }
}

TEST_CASE("device: Muon gives the tables of the CPU, in bf16 products up to their rounding") {
  const ScratchFolder scratch;
  write_tiny_images(scratch / "data");
  for (const auto& [dtype, tolerance] : {std::pair{"f64", 1e-6}, std::pair{"f32", 0.05}}) {
    CAPTURE(std::string(dtype));
    const Set set = six_steps({str("run.dtype=", dtype), "optimizer.name=muon", "optimizer.momentum_steps=4", "ema.decay=0"});
    Set there = set;
    there.push_back("run.device=cuda");
    const fs::path cpu = scratch / str("cpu-", dtype), cuda = scratch / str("cuda-", dtype);
    REQUIRE(train(tiny_recipe(scratch / "data", set), cpu) == 0);
    REQUIRE(train(tiny_recipe(scratch / "data", there), cuda) == 0);
    for (const char* table : {"steps.csv", "norms.csv"}) {
      CAPTURE(std::string(table));
      const double difference = table_difference(cpu / table, cuda / table);
      CHECK(difference < tolerance);
    }
  }
}

TEST_CASE("device: a recorded step gives bit for bit what an eager one gives") {
  const ScratchFolder scratch;
  write_tiny_images(scratch / "data");
  for (const bool capture : {true, false}) {
    const Recipe recipe = tiny_recipe(scratch / "data", six_steps({"run.device=cuda", str("run.capture=", capture ? "true" : "false")}));
    REQUIRE(train(recipe, scratch / (capture ? "recorded" : "eager")) == 0);
  }
  check_same_run(scratch / "recorded", scratch / "eager");
}

TEST_CASE("device: a resumed run gives bit for bit what an uninterrupted one gives") {
  const ScratchFolder scratch;
  write_tiny_images(scratch / "data");
  const Recipe recipe = tiny_recipe(scratch / "data", six_steps({"run.device=cuda"}));
  REQUIRE(train(recipe, scratch / "whole") == 0);
  REQUIRE(train(recipe, scratch / "halves", false, [] { std::raise(SIGTERM); }) == int(Exit::interrupted));
  REQUIRE(train(recipe, scratch / "halves", true) == 0);
  check_same_run(scratch / "whole", scratch / "halves");
}

TEST_CASE("device: what runs on the CPU only is refused with its reason") {
  for (const auto& [set, reason] : std::vector<std::pair<std::string, std::string>>{{"optimizer.name=sgd", "optimizer.name"},
                                                                                   {"constraint.method=spectral_normalize", "constraint.method"},
                                                                                   {"parts.norm=batch", "norms over the batch"},
                                                                                   {"parts.weight=sigma_reparam", "parts.weight"}}) {
    CAPTURE(set);
    const Recipe recipe = tiny_recipe("unused", {"run.device=cuda", set});
    CHECK_THROWS_WITH_AS(Training(recipe, true), doctest::Contains(reason.c_str()), Error);
  }
}
