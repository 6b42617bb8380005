// cli: words become options, mistakes become one line and an exit code.
#include "train/cli.h"

#include <doctest/doctest.h>

#include <iostream>
#include <new>
#include <sstream>
#include <stdexcept>

#include "engine/check.h"

namespace {

struct Outcome {
  int code;
  std::string out, err;
};

// Runs "lipsgrad WORDS..." and keeps what it prints.
Outcome run(std::vector<std::string> words, const Commands& commands = {}) {
  std::vector<const char*> argv{"lipsgrad"};
  for (const std::string& word : words) argv.push_back(word.c_str());
  std::ostringstream out, err;
  std::streambuf* const cout = std::cout.rdbuf(out.rdbuf());
  std::streambuf* const cerr = std::cerr.rdbuf(err.rdbuf());
  const int code = run_cli(static_cast<int>(argv.size()), argv.data(), commands);
  std::cout.rdbuf(cout);
  std::cerr.rdbuf(cerr);
  return {code, out.str(), err.str()};
}

// The options with which these words call the command.
template <class Options>
Options parsed(std::function<int(const Options&)> Commands::*command, std::vector<std::string> words) {
  Options seen;
  int calls = 0;
  Commands commands;
  commands.*command = [&](const Options& options) {
    seen = options, calls++;
    return 0;
  };
  const Outcome outcome = run(words, commands);
  CHECK_MESSAGE(outcome.code == 0, outcome.err);
  CHECK(calls == 1);
  return seen;
}

void refuses(std::vector<std::string> words, const std::string& line) {
  const Outcome outcome = run(words);
  CHECK(outcome.code == 64);
  CHECK(outcome.out == "");
  CHECK_MESSAGE(outcome.err == "lipsgrad: " + line + "\n", outcome.err);
}

using Words = std::vector<std::string>;

}  // namespace

TEST_CASE("cli: train") {
  const auto plain = parsed(&Commands::train, {"train", "recipes/fashion-swin.toml"});
  CHECK(plain.recipe == "recipes/fashion-swin.toml");
  CHECK(plain.run == "runs/fashion-swin");
  CHECK(!plain.resume);
  const auto full = parsed(
      &Commands::train, {"train", "--set", "a.b=1", "swin_tiny", "--set", "c.d=[2, 3]", "--run", "x/y", "--resume"});
  CHECK(full.recipe == "swin_tiny");
  CHECK(full.set == Words{"a.b=1", "c.d=[2, 3]"});
  CHECK(full.run == "x/y");
  CHECK(full.resume);
  CHECK(parsed(&Commands::train, {"train", "--resume", "--run=x"}).recipe == "");
  CHECK(parsed(&Commands::train, {"train", "eval"}).recipe == "eval");  // a name of a command may be a file
  refuses({"train"}, "train needs a RECIPE, or --resume with the --run folder to continue");
  refuses({"train", "--resume"}, "train needs a RECIPE, or --resume with the --run folder to continue");
}

TEST_CASE("cli: the other commands") {
  const auto eval = parsed(&Commands::eval, {"eval", "runs/a", "--json", "--ema"});
  CHECK(eval.target == "runs/a");
  CHECK(eval.json);
  CHECK(eval.ema);
  const auto predict = parsed(&Commands::predict, {"predict", "a.jpg", "b.jpg", "--run", "runs/a", "--top", "3"});
  CHECK(predict.images == Words{"a.jpg", "b.jpg"});
  CHECK(predict.target == "runs/a");
  CHECK(predict.top == 3);
  CHECK(parsed(&Commands::inspect, {"inspect", "runs/a"}).run == "runs/a");
  CHECK(parsed(&Commands::inspect, {"inspect", "runs/a", "--depth", "3"}).show.depth == 3);
  CHECK(parsed(&Commands::report, {"report", "a", "--figures", "f"}).figures == "f");
  CHECK(parsed(&Commands::summary, {"summary", "swin_tiny", "--tree"}).tree);
  CHECK(parsed(&Commands::report, {"report", "a", "b", "--output", "c.html"}).runs == Words{"a", "b"});
  CHECK(parsed(&Commands::summary, {"summary", "swin_tiny", "--json"}).json);
  const auto pack = parsed(&Commands::data_pack, {"data", "pack", "fashion-mnist", "d", "--shard-images", "100"});
  CHECK(pack.source == "fashion-mnist");
  CHECK(pack.folder == "d");
  CHECK(pack.shard_images == 100);
  CHECK(pack.restart_intervals == "");
  CHECK(parsed(&Commands::data_pack, {"data", "pack", "a", "d", "--restart-intervals", "auto"}).restart_intervals == "auto");
  CHECK(parsed(&Commands::data_verify, {"data", "verify", "d", "--regions", "20"}).regions == 20);
  const auto show = parsed(&Commands::data_show, {"data", "show", "swin_tiny", "-o", "s.png", "--set", "a.b=c", "--images", "9", "--epoch", "2"});
  CHECK(show.source == "swin_tiny");
  CHECK(show.output == "s.png");
  CHECK(show.set == Words{"a.b=c"});
  CHECK(show.images == 9);
  CHECK(show.epoch == 2);
  CHECK(parsed(&Commands::data_verify, {"data", "verify", "d"}).folder == "d");
  CHECK(parsed(&Commands::data_fetch, {"data", "fetch", "fashion-mnist"}).folder == "datasets/fashion-mnist");
  CHECK(parsed(&Commands::convert, {"convert", "a", "b", "--to", "timm"}).to == "timm");
  const auto fused = parsed(&Commands::convert, {"convert", "--fuse", "runs/a", "b", "--ema"});
  CHECK(fused.fuse);
  CHECK(fused.ema);
  CHECK(fused.input == "runs/a");
  CHECK(parsed(&Commands::convert, {"convert", "r.toml", "b", "--fuse", "--weights", "w"}).weights == "w");
  refuses({"convert", "a", "b"}, "convert needs --to NAMES or --fuse, and one of them only");
  refuses({"convert", "a", "b", "--fuse", "--to", "timm"}, "convert needs --to NAMES or --fuse, and one of them only");
  refuses({"convert", "a", "b", "--to", "timm", "--ema"}, "--weights and --ema go with --fuse: INPUT is the file that is renamed");
  CHECK(parsed(&Commands::bench, {"bench", "swin_tiny", "--inference"}).inference);
  CHECK(parsed(&Commands::bench, {"bench", "swin_tiny", "--count"}).count);
  const auto bench = parsed(&Commands::bench, {"bench", "swin_tiny", "--set", "a.b=c", "--steps", "3"});
  CHECK(bench.steps == 3);
  const auto timed = parsed(&Commands::bench_data, {"bench", "data", "d", "--recipe", "swin_tiny", "--images", "7", "--rounds", "3", "--json"});
  CHECK(timed.source == "d");
  CHECK(timed.recipe == "swin_tiny");
  CHECK(timed.images == 7);
  CHECK(timed.rounds == 3);
  CHECK(timed.json);
  refuses({"bench"}, "bench needs a RECIPE, or data SOURCE");
  CHECK(bench.set == Words{"a.b=c"});
  CHECK(!parsed(&Commands::devices, {"devices"}).json);
}

TEST_CASE("cli: forward") {
  const auto forward = parsed(
      &Commands::forward, {"forward", "r.toml", "--weights", "w", "--input", "x", "--output", "y", "--dtype", "f64",
                           "--train", "--steps", "10", "--partial", "--device", "cpu", "--set", "run.seed=1"});
  CHECK(forward.recipe == "r.toml");
  CHECK(forward.weights == "w");
  CHECK(forward.input == "x");
  CHECK(forward.output == "y");
  CHECK(forward.train);
  CHECK(forward.partial);
  CHECK(forward.steps == 10);
  CHECK(forward.set == Words{"run.seed=1", "run.dtype=f64", "run.device=cpu"});
}

TEST_CASE("cli: mistakes") {
  refuses({}, "a command is missing: see lipsgrad --help");
  refuses({"trian", "x"}, "unknown command 'trian': did you mean 'train'?");
  refuses({"data", "pakc"}, "unknown command 'pakc': did you mean 'pack'?");
  refuses({"data"}, "A subcommand is required: see lipsgrad data --help");
  refuses({"train", "r", "--rnu", "x"}, "unknown flag --rnu after train: did you mean '--run'?");
  refuses({"forward", "r", "--weigths=w"}, "unknown flag --weigths after forward: did you mean '--weights'?");
  refuses({"--jsn"}, "unknown flag --jsn after lipsgrad: known are --help");
  refuses({"inspect", "a", "b"}, "'b' is one word too many after inspect: see --help");
  refuses({"summary"}, "RECIPE is required: see lipsgrad summary --help");
  refuses({"predict", "a.jpg"}, "--run is required: see lipsgrad predict --help");
  CHECK(run({"bench", "r", "--steps", "many"}).code == 64);
  CHECK(run({"bench", "r", "--steps", "0"}).code == 64);
  CHECK(run({"convert", "a", "b", "--to", "onnx"}).code == 64);
  CHECK(run({"train", "r", "--set"}).code == 64);
}

TEST_CASE("cli: help goes to stdout, names every command, and shows an example") {
  const Outcome help = run({"--help"});
  CHECK(help.code == 0);
  CHECK(help.err == "");
  for (const char* command :
       {"train", "eval", "predict", "inspect", "report", "summary", "forward", "convert", "bench", "devices"}) {
    CAPTURE(command);
    CHECK(help.out.find(std::string("\n  ") + command) != std::string::npos);
    const Outcome one = run({command, "--help"});
    CHECK(one.code == 0);
    CHECK(one.out.find("Usage: lipsgrad " + std::string(command)) != std::string::npos);
  }
  CHECK(help.out.find("fashion-lipsformer") != std::string::npos);
  CHECK(run({"data", "pack", "--help"}).out.find("lipsgrad data pack fashion-mnist") != std::string::npos);
  CHECK(run({"train", "--help"}).out.find("--set SECTION.KEY=VALUE") != std::string::npos);
}

TEST_CASE("cli: what a command throws or returns is the exit code, and one line") {
  const auto outcome = [](std::function<int(const DevicesOptions&)> devices) {
    Commands commands;
    commands.devices = devices;
    return run({"devices"}, commands);
  };
  CHECK(outcome([](auto&) { return 75; }).code == 75);
  const Outcome refused = outcome([](auto&) -> int { fail(Exit::bad_data, "a file: is\ndamaged"); });
  CHECK(refused.code == 65);
  CHECK(refused.err == "lipsgrad: a file: is damaged\n");
  CHECK(outcome([](auto&) -> int { throw std::bad_alloc(); }).code == 1);
  const Outcome strange = outcome([](auto&) -> int { throw std::runtime_error("strange"); });
  CHECK(strange.code == 70);
  CHECK(strange.err == "lipsgrad: unexpected: strange\n");
  CHECK(outcome([](auto&) -> int { throw 3; }).code == 70);
  CHECK(run({"devices"}).code == 70);  // a hole in the table
  CHECK(outcome([](auto&) {
          std::cout.setstate(std::ios::badbit);
          return 0;
        }).code == 74);
  std::cout.clear();
}
