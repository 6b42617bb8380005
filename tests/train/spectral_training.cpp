// spectral_training: sigma_reparam and its relatives in a training: cut batches, evaluation, checkpoints; entropies and their floors in a run.
#include <cmath>
#include <cstring>

#include "tiny_run.h"
#include "train/checkpoint.h"
#include "train/csv_read.h"

namespace {

const std::vector<std::string> all_weights{"sigma_reparam", "spectral_norm", "weight_norm"};

Input noise(const Recipe& recipe, int count) {
  std::vector<double> pixels, targets;
  const RandomStream stream(3, "noise images");
  for (int i = 0; i < count; i++) {
    for (uint32_t p = 0; p < 64; p++) {
      const Words w = stream.words(uint32_t(i), p, 0);
      pixels.push_back(normal_from(w[0], w[1]));
    }
    for (int c = 0; c < 3; c++) targets.push_back(c == i % 3);
  }
  Input input;
  input.images = Tensor::from(Shape{count, 1, 8, 8}, pixels, recipe_dtype(recipe));
  input.targets = Tensor::from(Shape{count, 3}, targets, recipe_dtype(recipe));
  input.valid = count;
  return input;
}

// Three steps; the weights and buffers behind them.
struct Trained {
  std::vector<double> weights, buffers, gradients;
  double loss = 0;
  Trained(const std::string& weight, std::vector<std::string> set) {
    set.insert(set.end(), {"parts.weight=" + weight, "run.dtype=f64", "model.drop_path_rate=0.4"});
    Training training(tiny_recipe("unused", set), true);
    const Input input = noise(training.recipe, 8);
    for (uint32_t step = 0; step < 3; step++) {
      const StepResult result = training.gradients({input}, step);
      loss = result.loss, gradients = result.gradient.parameters;
      training.update(1e-2, result);
    }
    weights = training.model->store.values().values(), buffers = training.model->store.buffer_values().values();
  }
};

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double most = 0;
  for (size_t i = 0; i < a.size(); i++) most = std::max(most, std::abs(a[i] - b[i]));
  return most;
}

}  // namespace

TEST_CASE("spectral training: shards and micro-batches are one batch") {
  for (const std::string& weight : all_weights) {
    CAPTURE(weight);
    const Trained whole(weight, {"run.shards=1", "run.micro_batch=8"});
    for (const auto& cut : std::vector<std::vector<std::string>>{{"run.shards=1", "run.micro_batch=3"}, {"run.shards=2"}, {"run.shards=3"}}) {
      const Trained parts(weight, cut);
      CHECK(parts.loss == doctest::Approx(whole.loss).epsilon(1e-6));
      CHECK(largest_difference(parts.gradients, whole.gradients) < 1e-6);
      CHECK(largest_difference(parts.weights, whole.weights) < 1e-6);
      CHECK(largest_difference(parts.buffers, whole.buffers) < 1e-6);
    }
  }
}

TEST_CASE("spectral training: evaluation gives the same twice and moves no u") {
  for (const std::string& weight : all_weights) {
    CAPTURE(weight);
    Training training(tiny_recipe("unused", {"parts.weight=" + weight}), true);
    const Input input = noise(training.recipe, 8);
    for (uint32_t step = 0; step < 2; step++) training.update(1e-2, training.gradients({input}, step));
    const ParameterStore& store = training.model->store;
    const auto us = [&] {
      std::vector<double> all;
      for (const auto& w : store.spectral_weights)
        for (const double v : store.buffer(w.u).values()) all.push_back(v);
      return all;
    };
    const std::vector<double> before = us();
    const std::vector<double> once = training.logits(input).values();
    EvalResult sums;
    training.evaluate(input, sums);
    CHECK(training.logits(input).values() == once);
    CHECK(us() == before);
    CHECK(before.empty() == (weight == "weight_norm"));
    training.gradients({input}, 2);
    CHECK((us() != before) == (weight != "weight_norm"));
  }
}

TEST_CASE("spectral training: a checkpoint keeps u and gamma, and the logits with them") {
  for (const std::string& weight : all_weights) {
    const ScratchFolder folder;
    const Recipe recipe = tiny_recipe("unused", {"parts.weight=" + weight, "parts.gamma_init=one"});
    Training saved(recipe, true), loaded(recipe, true);
    const Input input = noise(recipe, 8);
    for (uint32_t step = 0; step < 3; step++) saved.update(1e-2, saved.gradients({input}, step));
    save_checkpoint(RunPaths{folder.path}, saved, {3, 0, 3}, 2);
    REQUIRE(loaded.logits(input).values() != saved.logits(input).values());
    load_checkpoint(newest_checkpoint(RunPaths{folder.path}), loaded);
    CHECK(loaded.logits(input).values() == saved.logits(input).values());
    CHECK(loaded.gradients({input}, 3).gradient.parameters == saved.gradients({input}, 3).gradient.parameters);
  }
}

TEST_CASE("spectral training: the map's norm stays that of gamma while it learns, and norms.csv has it") {
  const ScratchFolder folder;
  write_tiny_images(folder / "data");
  const std::vector<std::string> set{"parts.weight=sigma_reparam", "parts.init=xavier", "optimizer.lr=0.1", "ledger.power_iterations=30"};
  REQUIRE(train(tiny_recipe(folder / "data", set), folder / "run") == 0);
  const CsvData norms = read_csv(folder / "run" / "norms.csv"), bounds = read_csv(folder / "run" / "lipschitz.csv");
  REQUIRE(norms.rows == 15);
  const std::vector<double> gamma = norms.numbers("head.gamma"), bound = bounds.numbers("head"), sigma = norms.numbers("sigma.head.weight");
  CHECK(gamma.front() != gamma.back());
  for (size_t i = 0; i < norms.rows; i++) {
    CHECK(bound[i] >= std::abs(gamma[i]) * (1 - 1e-3));   // what W is divided by comes from one iteration, from below
    CHECK(bound[i] <= std::abs(gamma[i]) * 1.1);
    CHECK(std::isfinite(sigma[i]));
  }
}

// The schedule's temperature sharpens the logits in mid-run: entropies fall at that step, floors with them, and none is ever below its floor.
TEST_CASE("spectral training: entropies, their floors, and a temperature that changes") {
  const ScratchFolder folder;
  write_tiny_images(folder / "data");
  for (const std::string every : {"1", "3"}) {
    CAPTURE(every);
    const fs::path run = folder / ("run-" + every);
    REQUIRE(train(tiny_recipe(folder / "data", {"parts.attention=dot", "parts.init=trunc_normal", "model.drop_path_rate=0", "ledger.every=" + every,
                                                "schedule.temperature=0.02", "schedule.temperature_epoch=2", "optimizer.lr=1e-2",
                                                "ledger.power_iterations=20"}), run) == 0);
    const CsvData entropy = read_csv(run / "entropy.csv"), floor = read_csv(run / "entropy_floor.csv");
    REQUIRE(entropy.rows == floor.rows);
    CHECK(entropy.numbers("step") == floor.numbers("step"));
    double before = 0, after = 0, floor_before = 0, floor_after = 0;
    REQUIRE(entropy.columns.size() == 1 + 3);
    for (const CsvColumn& head : entropy.columns) {
      if (head.name == "step") continue;
      const std::vector<double> least = floor.numbers(head.name), measured = head.numbers;
      REQUIRE(least.size() == measured.size());
      for (size_t i = 0; i < entropy.rows; i++) {
        CHECK(measured[i] >= least[i] - 1e-5);
        (entropy.numbers("step")[i] < 10 ? before : after) += measured[i];
        (entropy.numbers("step")[i] < 10 ? floor_before : floor_after) += least[i];
      }
    }
    const double share = every == "1" ? 10.0 / 5 : 4.0 / 1;   // rows before and behind step 10
    CHECK(after * share < 0.9 * before);
    CHECK(floor_before > 0);
    CHECK(floor_after * share < 0.5 * floor_before);
  }
  // A row of every third step says of it what a row of every step says.
  const CsvData dense = read_csv(folder / "run-1" / "entropy_floor.csv"), thin = read_csv(folder / "run-3" / "entropy_floor.csv");
  for (const CsvColumn& layer : dense.columns)
    if (layer.name != "step") CHECK(thin.numbers(layer.name)[2] == doctest::Approx(layer.numbers[6]).epsilon(2e-4));
}
