// command_bench_count.cpp: `lipsgrad bench --count`: FLOPs and bytes of an image in a training step, by op, stage and part, beside the floor.
#include <algorithm>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "train/commands.h"
#include "train/load_model.h"
#include "train/step_count.h"

namespace {

struct Row {
  std::string name;
  OpCost cost;
};

// The dearest first.
std::vector<Row> rows_of(const StepCount& count) {
  std::vector<Row> rows;
  for (const auto& [op, cost] : count.ops) rows.push_back({op, cost});
  std::sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) { return a.cost.roofline_seconds > b.cost.roofline_seconds; });
  return rows;
}

nlohmann::json json_of(const OpCost& cost, double images) {
  return {{"calls", cost.calls}, {"kernels", cost.kernels}, {"gflop", 2e-9 * double(cost.macs) / images}, {"mb", 1e-6 * double(cost.bytes) / images},
          {"roofline_us", 1e6 * cost.roofline_seconds / images}};
}

void print(const Row& row, double images) {
  fmt::print("{:<32}{:>8}{:>9}{:>11.3f}{:>11.2f}{:>14.2f}\n", row.name, row.cost.calls, row.cost.kernels, 2e-9 * double(row.cost.macs) / images,
             1e-6 * double(row.cost.bytes) / images, 1e6 * row.cost.roofline_seconds / images);
}

void print(const std::string& name, const Traffic& count, const Traffic& floor) {
  fmt::print("{:<32}{:>9.2f}{:>9.2f}{:>11.2f}{:>9.2f}{:>11.2f}{:>9.2f}\n", name, 1e-6 * count.forward, 1e-6 * floor.forward, 1e-6 * count.backward,
             1e-6 * floor.backward, 1e-6 * count.both(), count.both() / floor.both());
}

Traffic sum(const PartTraffic& parts) {
  Traffic all;
  for (const auto& [part, traffic] : parts) all.forward += traffic.forward, all.backward += traffic.backward;
  return all;
}

// Of all stages, by part.
PartTraffic by_part(const StageTraffic& stages) {
  PartTraffic all;
  for (const auto& [stage, parts] : stages)
    for (const auto& [part, traffic] : parts) all[part].forward += traffic.forward, all[part].backward += traffic.backward;
  return all;
}

void print_beside_floor(const StageTraffic& stages, const StageTraffic& floor) {
  fmt::print("\n{:<32}{:>9}{:>9}{:>11}{:>9}{:>11}{:>9}\n", "MB an image, floor at level G", "forward", "floor", "backward", "floor", "both", "ratio");
  for (const auto& [stage, parts] : floor)
    if (!stage.empty()) print(stage, sum(stages.at(stage)), sum(parts));
  PartTraffic counted = by_part(stages);
  const PartTraffic least = by_part(floor);
  for (const auto& [part, traffic] : least) print(part, counted[part], traffic);
  print("all", sum(counted), sum(least));
}

nlohmann::json json_of(const StageTraffic& stages) {
  nlohmann::json json;
  for (const auto& [stage, parts] : stages)
    for (const auto& [part, traffic] : parts) json[stage][part] = {{"forward_mb", 1e-6 * traffic.forward}, {"backward_mb", 1e-6 * traffic.backward}};
  return json;
}

}  // namespace

int run_bench_count(const BenchOptions& options) {
  Training training(recipe_to_count(load_recipe(options.recipe, options.set)), true);
  const StepCount count = count_step(training);
  const double images = double(count.images);
  const StageTraffic stages = count.stages(*training.model);
  const auto floor = floor_of_step(*training.model);
  const OpCost total = count.total();
  if (options.json) {
    nlohmann::json json{{"batch_size", count.images}, {"dtype", training.recipe.run.dtype}, {"total", json_of(total, images)}, {"stages", json_of(stages)}};
    for (const auto& [op, cost] : count.ops) json["ops"][op] = json_of(cost, images);
    if (floor) json["floor"] = json_of(*floor);
    fmt::print("{}\n", json.dump());
    return int(Exit::ok);
  }
  fmt::print("{:<32}{:>8}{:>9}{:>11}{:>11}{:>14}\n", "op (GFLOP, MB, us an image)", "calls", "kernels", "GFLOP", "MB", "roofline us");
  for (const Row& row : rows_of(count)) print(row, images);
  print({"all", total}, images);
  if (floor) print_beside_floor(stages, *floor);
  fmt::print("\nbatch {} in {}; the roofline is of {:.0f} TFLOP/s ({:.1f} in depthwise convolutions) and {:.1f} TB/s; no optimizer in it\n", count.images,
             training.recipe.run.dtype, 1e-12 * roofline::tensor_flops, 1e-12 * roofline::vector_flops, 1e-12 * roofline::bytes_per_second);
  return int(Exit::ok);
}
