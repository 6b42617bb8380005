// batch_norms: norms over the batch in training: their buffers in checkpoints, over shards and in evaluation; their history and its PNAC.
#include <cmath>
#include <cstring>

#include "tiny_run.h"
#include "train/csv_read.h"
#include "train/statistics_history.h"
#include "layers/normality.h"

namespace {

const std::vector<std::string> all_norms{"batch", "moving_average_batch", "power", "unified"};

std::vector<std::string> with_norm(const std::string& norm, std::vector<std::string> more = {}) {
  std::vector<std::string> set{"parts.norm=" + norm, "parts.norm_window=4", "parts.norm_warmup=5", "parts.norm_alpha=0.8"};
  if (norm == "unified") set.push_back("parts.norm_filter=pooled");
  set.insert(set.end(), more.begin(), more.end());
  return set;
}

// Images first .. first + count - 1 of a sequence of noise; `valid` says what the loss is divided by.
Input noise(const Recipe& recipe, int count, int first, int valid) {
  std::vector<double> pixels, targets;
  const RandomStream stream(3, "noise images");
  for (int i = first; i < first + count; i++) {
    for (uint32_t p = 0; p < 64; p++) {
      const Words w = stream.words(uint32_t(i), p, 0);
      pixels.push_back((1 + i % 3) * normal_from(w[0], w[1]));
    }
    for (int c = 0; c < 3; c++) targets.push_back(c == i % 3);
  }
  Input input;
  input.images = Tensor::from(Shape{count, 1, 8, 8}, pixels, recipe_dtype(recipe));
  input.targets = Tensor::from(Shape{count, 3}, targets, recipe_dtype(recipe));
  input.valid = valid;
  return input;
}

std::string buffers_of(const Training& training) {
  const Tensor& b = training.model->store.buffer_values();
  return {static_cast<const char*>(b.raw()), b.bytes()};
}

}  // namespace

TEST_CASE("batch norms: a run resumed in the middle of a window equals the uninterrupted one") {
  for (const std::string& norm : all_norms) {
    CAPTURE(norm);
    const ScratchFolder folder;
    write_tiny_images(folder / "data");
    const Recipe recipe = tiny_recipe(folder / "data", with_norm(norm, {"parts.attention=dot", "run.checkpoint_steps=1", "run.keep_checkpoints=100"}));
    REQUIRE(train(recipe, folder / "whole") == 0);
    const std::vector<int64_t> steps = RunPaths{folder / "whole"}.sealed_checkpoints();
    for (const int64_t step : {int64_t(2), int64_t(9)}) {   // within the warmup, and behind it with windows half renewed
      CAPTURE(step);
      const RunPaths run{folder / str("from-", step)};
      fs::copy(folder / "whole", run.root, fs::copy_options::recursive);
      for (const int64_t later : steps)
        if (later > step) fs::remove_all(run.checkpoint(later));
      REQUIRE(train(recipe, run.root, true) == 0);
      check_same_run(folder / "whole", run.root);
    }
  }
}

TEST_CASE("batch norms: after a step the buffers are those of the first shard, and every shard goes on from them") {
  for (const std::string& norm : all_norms) {
    CAPTURE(norm);
    const std::vector<std::string> exact{"run.dtype=f64", "model.drop_path_rate=0"};
    auto one_set = exact, two_set = exact;
    one_set.push_back("run.shards=1"), two_set.push_back("run.shards=2");
    Training one(tiny_recipe("unused", with_norm(norm, one_set)), true), two(tiny_recipe("unused", with_norm(norm, two_set)), true);
    for (uint32_t step = 0; step < 7; step++) {
      const int first = 8 * int(step);
      // The same loss for an image: the half batch is divided by the size of the whole.
      one.gradients({noise(one.recipe, 4, first, 8)}, step);
      const StepResult both = two.gradients({noise(two.recipe, 8, first, 8)}, step);
      CHECK(std::isfinite(both.loss));
      CHECK(buffers_of(one) == buffers_of(two));
    }
    // The second shard's own statistics are left behind: what it computes next is a function of the first one's buffers alone.
    std::string before = buffers_of(two);
    Training fresh(two.recipe, true);
    std::memcpy(fresh.model->store.buffer_values().raw(), two.model->store.buffer_values().raw(), before.size());
    const Input next = noise(two.recipe, 8, 100, 8);
    CHECK(fresh.gradients({next}, 7).gradient.parameters == two.gradients({next}, 7).gradient.parameters);
  }
}

TEST_CASE("batch norms: evaluation changes nothing and sees no batch") {
  for (const std::string& norm : all_norms) {
    CAPTURE(norm);
    Training training(tiny_recipe("unused", with_norm(norm)), true);
    for (uint32_t step = 0; step < 6; step++) training.gradients({noise(training.recipe, 8, 8 * int(step), 8)}, step);
    const std::string before = buffers_of(training);
    const Input input = noise(training.recipe, 8, 50, 8);
    EvalResult sums;
    Tensor whole, again, half;
    training.evaluate(input, sums, &whole);
    training.evaluate(input, sums, &again);
    CHECK(buffers_of(training) == before);
    CHECK(whole.values() == again.values());
    training.evaluate(noise(training.recipe, 4, 50, 4), sums, &half);   // an image's logits do not depend on its neighbours
    for (int i = 0; i < 12; i++) CHECK(half.values()[size_t(i)] == doctest::Approx(whole.values()[size_t(i)]).epsilon(1e-5));
    const std::vector<double> trained = training.logits(input, Pass::deterministic).values();
    CHECK(trained != whole.values());
  }
}

TEST_CASE("batch norms: the history holds what each step put into the windows, and PNAC is that of its columns") {
  Training training(tiny_recipe("unused", with_norm("unified", {"parts.norm_filter=none", "run.shards=1", "model.depths=[1]", "model.num_heads=[1]"})), true);
  const ParameterStore& store = training.model->store;
  StatisticsHistory history(store);
  const std::vector<std::string> columns = history.columns();
  REQUIRE(!columns.empty());
  CHECK(columns[0] == "activation.patch_embed.norm");
  CHECK(columns[1] == "gradient.patch_embed.norm");
  const int windows[2] = {store.find_buffer("patch_embed.norm.buffer_x2"), store.find_buffer("patch_embed.norm.buffer_gz")};
  REQUIRE(windows[0] >= 0);
  std::vector<double> series[2];   // all rows that changed, found without the counter
  std::vector<double> before[2] = {store.buffer(windows[0]).values(), store.buffer(windows[1]).values()};
  const int64_t width = store.buffer(windows[0]).dim(1);
  for (uint32_t step = 0; step < StatisticsHistory::window; step++) {
    CHECK(!history.full());
    training.gradients({noise(training.recipe, 2, 2 * int(step), 2)}, step);
    history.note();
    for (int k = 0; k < 2; k++) {
      const std::vector<double> now = store.buffer(windows[k]).values();
      int changed = 0;
      for (size_t row = 0; row < now.size(); row += size_t(width))
        if (!std::equal(now.begin() + row, now.begin() + row + width, before[k].begin() + row)) {
          series[k].insert(series[k].end(), now.begin() + row, now.begin() + row + width);
          changed++;
        }
      CHECK(changed == 1);
      before[k] = now;
    }
  }
  CHECK(history.full());
  const std::vector<double> shares = history.pnac();
  REQUIRE(shares.size() == columns.size());
  for (int k = 0; k < 2; k++) CHECK(shares[size_t(k)] == pnac(Tensor::from(Shape{StatisticsHistory::window, width}, series[k], DType::f64)));
  for (const double share : shares) CHECK((share >= 0 && share <= 100));
}

TEST_CASE("batch norms: pnac.csv has a row every 150 steps, and only where there are windows") {
  const ScratchFolder folder;
  write_tiny_images(folder / "data");
  const std::vector<std::string> long_run{"schedule.epochs=31", "model.depths=[1]", "model.num_heads=[1]", "run.eval_every=0", "ledger.every=50"};
  for (const std::string norm : {"unified", "moving_average_batch", "power", "layer"}) {
    CAPTURE(norm);
    const bool windows = norm == "unified" || norm == "moving_average_batch";
    if (!windows) {
      REQUIRE(train(tiny_recipe(folder / "data", {"parts.norm=" + norm, "schedule.epochs=1"}), folder / norm) == 0);
      CHECK(!fs::exists(RunPaths{folder / norm}.pnac()));
      continue;
    }
    REQUIRE(train(tiny_recipe(folder / "data", with_norm(norm, long_run)), folder / norm) == 0);
    const CsvData pnac = read_csv(RunPaths{folder / norm}.pnac());
    REQUIRE(pnac.rows == 1);
    CHECK(pnac.numbers("step") == std::vector<double>{149});
    CHECK(pnac.columns.size() > 3);
    for (const CsvColumn& column : pnac.columns)
      if (column.name != "step") CHECK((column.numbers[0] >= 0 && column.numbers[0] <= 100));
    const CsvData norms = read_csv(RunPaths{folder / norm}.norms());
    CHECK((norms.find("patch_embed.norm.skip_counter") != nullptr) == (norm == "unified"));
  }
}
