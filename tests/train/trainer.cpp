// trainer: a run is a function of its recipe: stopped and resumed anywhere, on any number of threads, it comes out the same to the bit.
#include "train/trainer.h"

#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>

#include "tiny_run.h"
#include "train/csv_read.h"

namespace {

// Resumes a finished run from each of its checkpoints as if it had been killed at its end, and compares.
void check_resuming_everywhere(const std::vector<std::string>& set) {
  const ScratchFolder folder;
  write_tiny_images(folder / "data");
  std::vector<std::string> all{"run.checkpoint_steps=1", "run.keep_checkpoints=1000"};
  all.insert(all.end(), set.begin(), set.end());
  const Recipe recipe = tiny_recipe(folder / "data", all);
  REQUIRE(train(recipe, folder / "whole") == 0);
  const std::vector<int64_t> steps = RunPaths{folder / "whole"}.sealed_checkpoints();
  REQUIRE(steps.size() >= 6);
  for (const int64_t step : steps) {
    CAPTURE(step);
    const RunPaths run{folder / str("from-", step)};
    fs::copy(folder / "whole", run.root, fs::copy_options::recursive);
    for (const int64_t later : steps)
      if (later > step) fs::remove_all(run.checkpoint(later));
    REQUIRE(train(recipe, run.root, true) == 0);
    check_same_run(folder / "whole", run.root);
    fs::remove_all(run.root);
  }
}

}  // namespace

TEST_CASE("trainer: a run resumed at any step equals the uninterrupted one") { check_resuming_everywhere({}); }

TEST_CASE("trainer: the same with averaged weights, accumulation, and a ledger of every third step") {
  check_resuming_everywhere({"ema.decay=0.9", "optimizer.accumulate=2", "schedule.epochs=4", "ledger.every=3"});
}

TEST_CASE("trainer: the tables have each step once, and what the run was") {
  const ScratchFolder folder;
  write_tiny_images(folder / "data");
  REQUIRE(train(tiny_recipe(folder / "data"), folder / "run") == 0);
  const RunPaths run{folder / "run"};
  const CsvData table = read_csv(run.steps(), {"bound_kind", "bound_blame"});
  REQUIRE(table.rows == 15);
  for (size_t i = 0; i < table.rows; i++) {
    CHECK(table.numbers("step")[i] == double(i));
    CHECK(table.numbers("epoch")[i] == double(i / 5));
    CHECK(table.numbers("samples")[i] == double(8 * (i + 1)));
    CHECK(std::isfinite(table.numbers("log10_bound_l2")[i]));
    CHECK(table.texts("bound_kind")[i] == "estimate");
  }
  const CsvData epochs = read_csv(run.epochs());
  CHECK(epochs.numbers("step") == std::vector<double>{4, 9, 14});
  CHECK(epochs.numbers("images") == std::vector<double>{15, 15, 15});
  const CsvData layers = read_csv(run.lipschitz());
  CHECK(layers.rows == 15);
  // Certified at step 0 (and every hundredth) and at each evaluation; what was measured is between nothing and that.
  const CsvData certified = read_csv(run.certified(), {"kind", "blame"}), measured = read_csv(run.measured());
  CHECK(certified.numbers("step") == std::vector<double>{0, 4, 9, 14});
  CHECK(measured.numbers("step") == std::vector<double>{4, 9, 14});
  for (size_t i = 0; i < 4; i++) {
    CHECK(certified.texts("kind")[i] == "certified");
    const size_t step = size_t(certified.numbers("step")[i]);
    CHECK(certified.numbers("log10_bound_l2")[i] >= table.numbers("log10_bound_l2")[step]);
    CHECK(certified.numbers("log10_bound_l2")[i] <= table.numbers("log10_bound_l2")[step] + 0.2);
    for (const CsvColumn& layer : layers.columns)
      if (layer.name != "step") CHECK(certified.numbers(layer.name)[i] >= layer.numbers[step] * (1 - 1e-6));
  }
  for (const CsvColumn& stage : measured.columns)
    for (size_t i = 0; i < 3 && stage.name != "step"; i++) {
      CAPTURE(stage.name);
      CHECK(stage.numbers[i] > 0);
      if (certified.find(stage.name)) CHECK(stage.numbers[i] <= certified.numbers(stage.name)[i + 1] * (1 + 1e-4));
    }
  CHECK(measured.numbers("network").size() == 3);
  CHECK(read_csv(run.entropy()).columns.size() == 1 + 3);
  CHECK(parse_recipe(bytes_of(run.recipe()), "run") == tiny_recipe(folder / "data"));
  CHECK(bytes_of(run.root / "classes.txt") == "a\nb\nc\n");
}

TEST_CASE("trainer: a signal stops it after the step, and the resumed run misses and repeats nothing") {
  const ScratchFolder folder;
  write_tiny_images(folder / "data");
  const Recipe recipe = tiny_recipe(folder / "data", {"schedule.epochs=12"});
  REQUIRE(train(recipe, folder / "whole") == 0);

  SUBCASE("before the first step") {
    CHECK(train(recipe, folder / "run", false, [] { raise(SIGTERM); }) == int(Exit::interrupted));
    CHECK(RunPaths{folder / "run"}.sealed_checkpoints() == std::vector<int64_t>{0});
    REQUIRE(train(recipe, folder / "run", true) == 0);
    check_same_run(folder / "whole", folder / "run");
  }
  SUBCASE("somewhere on the way") {
    // Where the signal lands is up to the scheduler; on a busy machine it may come too late and is sent to another run.
    for (int attempt = 0; attempt < 20; attempt++) {
      const RunPaths run{folder / str("run-", attempt)};
      std::thread sender;
      const int code = train(recipe, run.root, false, [&] {
        sender = std::thread([steps = run.steps()] {
          while (std::ifstream(steps).seekg(0, std::ios::end).tellg() < 600) std::this_thread::sleep_for(std::chrono::microseconds(200));
          raise(SIGTERM);
        });
      });
      sender.join();
      if (code == 0) continue;
      CHECK(code == int(Exit::interrupted));
      const int64_t step = RunPaths{run.root}.sealed_checkpoints().back();
      CHECK(read_csv(run.steps(), {"bound_kind", "bound_blame"}).rows == size_t(step));
      CHECK(bytes_of(run.events()).find("stopped") != std::string::npos);
      REQUIRE(train(recipe, run.root, true) == 0);
      check_same_run(folder / "whole", run.root);
      CHECK_MESSAGE(bytes_of(run.events()).find("stopped") != std::string::npos, "the stop is forgotten");
      return;
    }
    FAIL("no run was stopped on its way");
  }
}

TEST_CASE("trainer: the numbers of threads change no bit") {
  const ScratchFolder folder;
  write_tiny_images(folder / "data");
  const auto run = [&](const std::string& name, std::vector<std::string> set) {
    REQUIRE(train(tiny_recipe(folder / "data", set), folder / name) == 0);
    return folder / name;
  };
  const fs::path one = run("one", {"run.threads=1", "data.workers=1"});
  check_same_run(one, run("again", {"run.threads=1", "data.workers=1"}));
  check_same_run(one, run("two", {"run.threads=2", "data.workers=3"}));
  check_same_run(one, run("three", {"run.threads=3", "data.workers=2"}));
}

TEST_CASE("trainer: a damaged image costs itself, is counted and named, once") {
  const ScratchFolder folder;
  write_tiny_images(folder / "data");
  write_bytes(folder / "data/train/b/3.jpg", "");
  write_bytes(folder / "data/train/c/7.jpg", "no image at all");
  write_bytes(folder / "data/val/a/1.jpg", tiny_jpeg(0, 1).substr(0, 200));
  const Recipe recipe = tiny_recipe(folder / "data", {"run.checkpoint_steps=1", "run.keep_checkpoints=1000"});
  REQUIRE(train(recipe, folder / "run") == 0);
  const RunPaths run{folder / "run"};
  const CsvData epochs = read_csv(run.epochs());
  CHECK(epochs.numbers("damaged").back() == 3);
  CHECK(epochs.numbers("images") == std::vector<double>{14, 14, 14});
  const CsvData events = read_csv(run.events(), {"kind", "layer", "message"});
  const auto named = [](const CsvData& table, const std::string& image) {
    int n = 0;
    for (size_t i = 0; i < table.rows; i++)
      n += table.texts("kind")[i] == "damaged_image" && table.texts("message")[i].find(image) != std::string::npos;
    return n;
  };
  for (const char* image : {"b/3.jpg", "c/7.jpg", "val/a/1.jpg"}) CHECK(named(events, image) == 1);
  CHECK(std::isfinite(read_csv(run.steps(), {"bound_kind", "bound_blame"}).numbers("loss").back()));

  // Killed and resumed in the middle: still counted, still named.
  for (const int64_t step : run.sealed_checkpoints())
    if (step > 7) fs::remove_all(run.checkpoint(step));
  REQUIRE(train(recipe, run.root, true) == 0);
  CHECK(read_csv(run.epochs()).numbers("damaged") == epochs.numbers("damaged"));
  const CsvData resumed = read_csv(run.events(), {"kind", "layer", "message"});
  for (const char* image : {"b/3.jpg", "c/7.jpg", "val/a/1.jpg"}) CHECK(named(resumed, image) == 1);
}
