// command_bench.cpp: `lipsgrad bench`: a full training step on made-up pixels (forward, backward, update, ledger) and where its time goes.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "train/commands.h"
#include "train/ledger.h"
#include "train/load_model.h"

namespace {

using Clock = std::chrono::steady_clock;
double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }
double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v.empty() ? 0 : v[v.size() / 2];
}

Batch made_up_batch(const Recipe& recipe) {
  Batch batch{.count = recipe.data.batch_size, .height = recipe.model.img_size, .width = recipe.model.img_size, .channels = recipe.model.in_chans};
  batch.images.resize(size_t(batch.count) * batch.height * batch.width * batch.channels);
  const RandomStream stream(uint64_t(recipe.run.seed), "bench");
  for (size_t i = 0; i < batch.images.size(); i++) batch.images[i] = uint8_t(stream.words(0, i / 4, 0)[i % 4]);
  for (int i = 0; i < batch.count; i++) {
    batch.labels.push_back(i % recipe.model.num_classes);
    batch.samples.push_back(i);
    batch.erase.push_back({});
    batch.valid.push_back(1);
  }
  return batch;
}

// A folder of its own that is gone afterwards.
struct Scratch {
  std::filesystem::path path;
  Scratch() {
    std::string name = (std::filesystem::temp_directory_path() / "lipsgrad-bench-XXXXXX").string();
    if (!mkdtemp(name.data())) fail(Exit::cannot_create, "no scratch folder can be made in ", std::filesystem::temp_directory_path().string());
    path = name;
  }
  ~Scratch() { std::filesystem::remove_all(path); }
};

}  // namespace

int run_bench(const BenchOptions& options) {
  const Recipe recipe = load_recipe(options.recipe, options.set);
  Training training(recipe, true);
  training.norms->iterate(training.workers, 2);
  const Scratch scratch;
  Ledger ledger(RunPaths{scratch.path}, training);
  const Batch batch = made_up_batch(recipe);
  std::map<std::string, OpCost> costs;
  std::vector<double> whole, backward_part, update_part, ledger_part;
  for (int i = 0; i < options.warmup + options.steps; i++) {
    if (i == options.warmup) training.profile = &costs;
    const Clock::time_point start = Clock::now();
    const std::vector<Input> inputs{make_input(batch, recipe, uint32_t(i), 0, true)};
    const StepResult result = training.gradients(inputs, uint32_t(i));
    const double t1 = since(start);
    training.update(1e-4, result);
    const double t2 = since(start);
    ledger.step({i, 0, (i + 1) * result.images, 1e-4, double(result.images) / t2, 0}, result);
    const double t3 = since(start);
    if (i < options.warmup) continue;
    whole.push_back(t3), backward_part.push_back(t1), update_part.push_back(t2 - t1), ledger_part.push_back(t3 - t2);
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const double step = median(whole), images_per_s = recipe.data.batch_size / step;
  int64_t macs = 0;
  double seconds = 0;
  std::vector<std::pair<std::string, OpCost>> table(costs.begin(), costs.end());
  for (const auto& [op, cost] : table) macs += cost.macs, seconds += cost.seconds;
  std::sort(table.begin(), table.end(), [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
  if (options.json) {
    nlohmann::json json{{"images_per_s", images_per_s}, {"step_seconds", step}, {"batch_size", recipe.data.batch_size},
                        {"threads", training.workers.threads()}, {"forward_backward_seconds", median(backward_part)},
                        {"update_seconds", median(update_part)}, {"ledger_seconds", median(ledger_part)},
                        {"ledger_share", median(ledger_part) / step}, {"macs_per_step", macs / options.steps},
                        {"peak_memory_bytes", int64_t(usage.ru_maxrss) * 1024}, {"arena_bytes", training.arena_bytes()}};
    for (const auto& [op, cost] : table)
      json["ops"][op] = {{"seconds", cost.seconds / options.steps}, {"calls", cost.calls / options.steps}, {"macs", cost.macs / options.steps}};
    fmt::print("{}\n", json.dump());
    return int(Exit::ok);
  }
  fmt::print("{:<32}{:>8}{:>12}{:>10}{:>12}\n", "op (thread time a step)", "calls", "ms", "share", "GFLOP/s");
  for (const auto& [op, cost] : table)
    fmt::print("{:<32}{:>8}{:>12.2f}{:>9.1f}%{:>12.1f}\n", op, cost.calls / options.steps, 1e3 * cost.seconds / options.steps,
               100 * cost.seconds / seconds, 2e-9 * double(cost.macs) / std::max(cost.seconds, 1e-12));
  fmt::print("\nstep {:.1f} ms: forward and backward {:.1f}, update {:.1f}, ledger {:.2f} ({:.2f} %)\n", 1e3 * step, 1e3 * median(backward_part),
             1e3 * median(update_part), 1e3 * median(ledger_part), 100 * median(ledger_part) / step);
  fmt::print("{:.2f} images/s at batch {}, {} threads, {:.1f} GFLOP/s, peak memory {:.2f} GB (medians of {} steps)\n", images_per_s,
             recipe.data.batch_size, training.workers.threads(), 2e-9 * double(macs) / options.steps / step, double(usage.ru_maxrss) / 1e6, options.steps);
  return int(Exit::ok);
}
