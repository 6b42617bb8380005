// run_folder: no run is written over or by two; sessions add up.
#include "train/run_folder.h"

#include <doctest/doctest.h>

#include "engine/check.h"
#include "engine/durable_file.h"
#include "train/sealed_folder.h"
#include "synthetic_run.h"

TEST_CASE("run folder: created once, resumed only if there, locked while open") {
  const TestFolder folder("run");
  const auto root = folder.path / "runs" / "a";
  CHECK_THROWS_WITH_AS(RunFolder::resume(root), doctest::Contains("leave out --resume"), Error);
  {
    const RunFolder run = RunFolder::create(root);
    write_file_atomically(run.paths.recipe(), "preset = \"x\"\n");
    CHECK_THROWS_WITH_AS(RunFolder::resume(root), doctest::Contains("another lipsgrad"), Error);
  }
  CHECK_THROWS_WITH_AS(RunFolder::create(root), doctest::Contains("continue it with --resume"), Error);
  CHECK(read_file(root / "recipe.toml") == "preset = \"x\"\n");
  CHECK_NOTHROW(RunFolder::resume(root));
}

TEST_CASE("run folder: only sealed checkpoints count, in the order of their steps") {
  const TestFolder folder("checkpoints");
  const RunFolder run = RunFolder::create(folder.path / "a");
  for (const int step : {900, 1000, 100000000, 20}) {
    make_folders(run.paths.checkpoint(step));
    write_file_atomically(run.paths.checkpoint(step) / "state.json", "{}");
    if (step != 1000) seal_folder(run.paths.checkpoint(step));
  }
  make_folders(run.paths.checkpoints() / "step-x");
  CHECK(run.paths.checkpoint(900).filename() == "step-00000900");
  CHECK(run.paths.sealed_checkpoints() == std::vector<std::int64_t>{20, 900, 100000000});
}

TEST_CASE("run folder: environment.json keeps every session") {
  const TestFolder folder("environment");
  const RunPaths paths{folder.path};
  const char* command[] = {"lipsgrad", "train", "\xff not utf-8"};
  add_session(paths, describe_session(command, 0));
  add_session(paths, describe_session(command, 300));
  const auto environment = nlohmann::json::parse(read_file(paths.environment()));
  REQUIRE(environment["sessions"].size() == 2);
  CHECK(environment["sessions"][1]["first_step"] == 300);
  CHECK(environment["sessions"][0]["cores"].get<int>() >= 1);
  CHECK(environment["sessions"][0]["compiler"].get<std::string>().size() > 3);
  CHECK(environment["sessions"][0]["build_flags"].get<std::string>().find("-O") != std::string::npos);
}
