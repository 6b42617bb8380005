// command_bench.cpp: `lipsgrad bench`: a full training step on made-up pixels (forward, backward, update, ledger) and where its time goes; or
// evaluation alone.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "train/commands.h"
#include "train/ledger.h"
#include "train/load_model.h"
#include "train/step_count.h"

namespace {

using Clock = std::chrono::steady_clock;
double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }
double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v.empty() ? 0 : v[v.size() / 2];
}

Batch made_up_text(const Recipe& recipe) {
  Batch batch{.count = recipe.data.batch_size};
  const RandomStream stream(uint64_t(recipe.run.seed), "bench");
  for (int64_t i = 0; i < int64_t(batch.count) * recipe.model.context; i++)
    batch.tokens.push_back(int32_t(stream.words(0, uint64_t(i), 0)[0] % uint32_t(recipe.model.vocab_size)));
  batch.next_tokens = batch.tokens;
  return batch;
}

Batch made_up_batch(const Recipe& recipe) {
  if (recipe.model.family == "gpt") return made_up_text(recipe);
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

int64_t peak_memory() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return int64_t(usage.ru_maxrss) * 1024;
}

// What is taken of a GPU's memory now, by whomever; 0 where there is none.
int64_t device_bytes(Device device) {
  if (device.kind == Device::cpu) return 0;
  const DeviceInfo gpu = describe_device(device.index);
  return int64_t(gpu.memory_bytes - gpu.free_bytes);
}

// What the ops of some steps took; the dearest first. On a GPU they are only counted: the host's clock says nothing of an op.
struct OpTable {
  std::vector<std::pair<std::string, OpCost>> rows;
  int steps;
  bool timed;
  int64_t macs = 0;   // of a step

  OpTable(const std::map<std::string, OpCost>& costs, int steps, Device device)
      : rows(costs.begin(), costs.end()), steps(steps), timed(device.kind == Device::cpu) {
    for (const auto& [op, cost] : rows) macs += cost.macs;
    macs /= steps;
    std::sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
  }
  nlohmann::json json() const {
    nlohmann::json ops;
    for (const auto& [op, cost] : rows) {
      ops[op] = {{"calls", cost.calls / steps}, {"macs", cost.macs / steps}, {"bytes", cost.bytes / steps}};
      if (timed) ops[op]["seconds"] = cost.seconds / steps;
    }
    return ops;
  }
  void print() const {
    if (!timed) return;
    double seconds = 0;
    for (const auto& [op, cost] : rows) seconds += cost.seconds;
    fmt::print("{:<32}{:>8}{:>12}{:>10}{:>12}{:>10}\n", "op (thread time a step)", "calls", "ms", "share", "GFLOP/s", "GB/s");
    for (const auto& [op, cost] : rows)
      fmt::print("{:<32}{:>8}{:>12.2f}{:>9.1f}%{:>12.1f}{:>10.2f}\n", op, cost.calls / steps, 1e3 * cost.seconds / steps, 100 * cost.seconds / seconds,
                 2e-9 * double(cost.macs) / std::max(cost.seconds, 1e-12), 1e-9 * double(cost.bytes) / std::max(cost.seconds, 1e-12));
    fmt::print("\n");
  }
};

// What both kinds of bench say about a step.
nlohmann::json step_json(const Training& training, double step, const OpTable& table) {
  return {{"images_per_s", training.recipe.data.batch_size / step}, {"step_seconds", step}, {"batch_size", training.recipe.data.batch_size},
          {"threads", training.workers.threads()}, {"macs_per_step", table.macs}, {"peak_memory_bytes", peak_memory()},
          {"arena_bytes", training.arena_bytes()}, {"device_bytes", device_bytes(training.device)}, {"ops", table.json()}};
}

void print_rate(const Training& training, double step, const OpTable& table, int steps) {
  fmt::print("{:.2f} images/s at batch {}, {} threads, {:.1f} GFLOP/s, peak memory {:.2f} GB, {:.1f} MB of it activations (medians of {} steps)\n",
             training.recipe.data.batch_size / step, training.recipe.data.batch_size, training.workers.threads(), 2e-9 * double(table.macs) / step,
             double(peak_memory()) / 1e9, double(training.arena_bytes()) / 1e6, steps);
}

// Of a training step: as it was timed, or, where ops are recorded once and their kernels replayed, as `bench --count` has it.
OpTable ops_of_step(const Training& training, const std::map<std::string, OpCost>& costs, int steps) {
  if (training.device == Device{}) return {costs, steps, training.device};
  Training counted(recipe_to_count(training.recipe), true);
  return {count_step(counted).ops, 1, training.device};
}

int bench_inference(const Recipe& recipe, const BenchOptions& options) {
  Training training(recipe, false);
  const Input input = make_input(made_up_batch(recipe), recipe, 0, 0, false);
  std::map<std::string, OpCost> costs;
  std::vector<double> times;
  EvalResult sums;
  for (int i = 0; i < options.warmup + options.steps; i++) {
    if (i == options.warmup) training.profile = &costs;
    const Clock::time_point start = Clock::now();
    training.evaluate(input, sums);
    if (i >= options.warmup) times.push_back(since(start));
  }
  const OpTable table(costs, options.steps, training.device);
  const double step = median(times);
  if (options.json) {
    fmt::print("{}\n", step_json(training, step, table).dump());
    return int(Exit::ok);
  }
  table.print();
  print_rate(training, step, table, options.steps);
  return int(Exit::ok);
}

}  // namespace

int run_bench(const BenchOptions& options) {
  if (options.count) return run_bench_count(options);
  Recipe recipe = load_recipe(options.recipe, options.set);
  recipe.ledger.certify_every = 0;   // timed by itself
  if (options.inference) return bench_inference(recipe, options);
  Training training(recipe, true);
  training.norms->iterate(training.workers, 300);   // as in mid-run, where power iteration has long converged
  const Scratch scratch;
  Ledger ledger(RunPaths{scratch.path}, training);
  const Batch batch = made_up_batch(recipe);
  std::map<std::string, OpCost> costs;
  std::vector<double> whole, backward_part, update_part, ledger_part, certified_part;
  const auto inputs_of = [&](int i) { return std::vector<Input>{make_input(batch, recipe, uint32_t(i), 0, true)}; };
  std::vector<Input> inputs, ahead;
  for (int i = 0; i < options.warmup + options.steps; i++) {
    if (i == options.warmup && training.device == Device{}) training.profile = &costs;
    const Clock::time_point start = Clock::now();
    inputs = ahead.empty() ? inputs_of(i) : std::exchange(ahead, {});
    double t1 = 0;
    ledger.before_step(i);
    const StepResult result = training.step(inputs, uint32_t(i), 1e-4, [&](const StepResult& result) {
      t1 = since(start);   // on a GPU the update is in it
      ledger.before_update(i, result);
    }, [&] {
      ahead = inputs_of(i + 1);
      training.send_ahead(ahead);
    });
    const double t2 = since(start);
    if (options.losses) fmt::print("{:.9g}\n", result.loss);
    ledger.step({i, 0, (i + 1) * result.images, 1e-4, double(result.images) / t2, 0}, result);
    const double t3 = since(start);
    ledger.certify(i);
    certified_part.push_back(since(start) - t3);
    if (i < options.warmup) continue;
    whole.push_back(t3), backward_part.push_back(t1), update_part.push_back(t2 - t1), ledger_part.push_back(t3 - t2);
  }
  if (options.losses) return int(Exit::ok);
  const OpTable table = ops_of_step(training, costs, options.steps);
  const double step = median(whole);
  if (options.json) {
    nlohmann::json json = step_json(training, step, table);
    json.update({{"forward_backward_seconds", median(backward_part)}, {"update_seconds", median(update_part)},
                 {"ledger_seconds", median(ledger_part)}, {"ledger_share", median(ledger_part) / step},
                 {"certified_seconds", median(certified_part)}});
    fmt::print("{}\n", json.dump());
    return int(Exit::ok);
  }
  table.print();
  fmt::print("step {:.1f} ms: forward and backward {:.1f}, update {:.1f}, ledger {:.2f} ({:.2f} %); a certified row {:.1f} more ({:.2f} %)\n",
             1e3 * step, 1e3 * median(backward_part), 1e3 * median(update_part), 1e3 * median(ledger_part), 100 * median(ledger_part) / step,
             1e3 * median(certified_part), 100 * median(certified_part) / step);
  print_rate(training, step, table, options.steps);
  return int(Exit::ok);
}
