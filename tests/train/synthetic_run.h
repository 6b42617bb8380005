// synthetic_run.h: a run folder like one that training leaves, for the tests of its readers.
#pragma once
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include <unistd.h>

#include "engine/random.h"
#include "train/csv_table.h"
#include "train/run_folder.h"
#include "synthetic_tree.h"

// A folder of the test's own, gone when the test is over.
struct TestFolder {
  std::filesystem::path path;
  explicit TestFolder(const std::string& name)
      : path(std::filesystem::temp_directory_path() / ("lipsgrad-" + name + "-" + std::to_string(::getpid()))) {
    std::filesystem::remove_all(path);
    std::filesystem::create_directories(path);
  }
  ~TestFolder() { std::filesystem::remove_all(path); }
};

struct SyntheticRun {
  int steps = 2000;
  int steps_per_epoch = 100;
  bool evaluated = true;
  int diverges_at = -1;       // from here on the loss is nan
  bool unbounded = false;     // dot-product attention: its blocks and the network have no bound
  double lr = 1e-3;
  std::uint64_t seed = 1;
  bool proven = true;         // certified.csv and measured.csv at every evaluation
  double promised = std::numeric_limits<double>::quiet_NaN();   // log10 of the rms bound that its constraint promises
};

// The columns of its tables, fixed before the first row.
struct SyntheticColumns {
  std::vector<std::string> weights, scales, heads;
  nlohmann::json most;

  SyntheticColumns() {   // Swin-T's heads (3, 6, 12, 24 in stages of 2, 2, 6, 2 blocks: 138 in 12 layers) and weights
    const int depths[] = {2, 2, 6, 2}, counts[] = {3, 6, 12, 24};
    weights.push_back("patch_embed.proj.weight");
    for (int stage = 0; stage < 4; stage++) {
      for (int block = 0; block < depths[stage]; block++) {
        const std::string name = "layers." + std::to_string(stage) + ".blocks." + std::to_string(block);
        for (const char* weight : {"attn.qkv.q", "attn.qkv.k", "attn.qkv.v", "attn.proj.weight", "mlp.fc1.weight", "mlp.fc2.weight", "nin.weight",
                                   "dwconv_layers.0.weight", "dwconv_layers.1.weight"})
          weights.push_back(name + "." + weight);
        scales.push_back(name + ".alpha1");
        scales.push_back(name + ".alpha2");
        for (int head = 0; head < counts[stage]; head++) heads.push_back(name + ".attn." + std::to_string(head));
        most[name + ".attn"] = std::log(49.0);
      }
      if (stage < 3) weights.push_back("layers." + std::to_string(stage) + ".downsample.reduction.weight");
    }
    weights.push_back("head.weight");
  }
};

inline std::vector<std::string> with_names(std::vector<std::string> columns, const std::vector<std::string>& names, const std::string& prefix = "") {
  for (const std::string& name : names) columns.push_back(prefix + name);
  return columns;
}

inline void write_synthetic_recipe(const RunPaths& paths, const SyntheticRun& shape) {
  std::ofstream(paths.recipe())
      << "preset = \"lipsformer_swin_tiny\"\n\n[model]\nfamily = \"swin\"\nimg_size = 224\nembed_dim = 96\n"
      << "depths = [2, 2, 6, 2]\nnum_heads = [3, 6, 12, 24]\n\n[parts]\nnorm = \"center\"\nattention = \""
      << (shape.unbounded ? "dot" : "cosine")
      << "\"\nresidual = \"weighted\"\ninit = \"spectral\"\n\n[optimizer]\nname = \"adamw\"\nlr = " << shape.lr
      << "\nweight_decay = 0.05\n\n[schedule]\nepochs = 20\nwarmup_epochs = 0\n\n[run]\nseed = " << shape.seed << "\n";
}

inline void write_synthetic_run(const std::filesystem::path& root, const SyntheticRun& shape) {
  const SyntheticColumns columns;
  SyntheticPart network = synthetic_swin(shape.unbounded);
  std::vector<const SyntheticPart*> named;
  network.collect(named);
  std::vector<std::string> layers, stages;
  nlohmann::json kinds = nlohmann::json::array();
  for (const SyntheticPart* part : named) layers.push_back(part->name), kinds.push_back({{"name", part->name}, {"kind", part->kind}});
  for (const SyntheticPart& part : network.parts) stages.push_back(part.name);
  stages.push_back("network");

  RunFolder run = RunFolder::create(root);
  write_synthetic_recipe(run.paths, shape);
  nlohmann::json about{{"entropy_max", columns.most}, {"layers", kinds}, {"tree", network.json()}};
  about["log10_promised_bound_rms"] = shape.promised;
  std::ofstream(run.paths.ledger()) << about.dump();
  const char* command[] = {"lipsgrad", "train", "recipes/lipsformer_swin_tiny.toml", "--run", "runs/a"};
  add_session(run.paths, describe_session(command, 0));

  CsvTable step_table =
      CsvTable::create(run.paths.steps(), {"step", "epoch", "samples", "loss", "lr", "grad_norm", "images_per_s", "data_wait",
                                           "log10_bound_l2", "bound_kind", "bound_blame", "log10_bound_rms"});
  CsvTable bound_table = CsvTable::create(run.paths.lipschitz(), with_names({"step"}, layers));
  CsvTable norm_table = CsvTable::create(
      run.paths.norms(), with_names(with_names(with_names({"step"}, columns.weights, "sigma."), columns.scales, "alpha_max."), columns.weights, "grad."));
  CsvTable entropy_table = CsvTable::create(run.paths.entropy(), with_names({"step"}, columns.heads));
  CsvTable floor_table = CsvTable::create(run.paths.entropy_floor(), with_names({"step"}, columns.heads));
  CsvTable epoch_table =
      CsvTable::create(run.paths.epochs(), {"epoch", "step", "loss", "top1", "top5", "ema_top1", "images", "damaged"});
  CsvTable event_table = CsvTable::create(run.paths.events(), {"step", "kind", "layer", "message"});
  std::optional<CsvTable> certified_table, measured_table;
  if (shape.proven) {
    certified_table.emplace(CsvTable::create(run.paths.certified(), with_names({"step", "kind", "blame", "log10_bound_l2", "log10_bound_rms"}, layers)));
    measured_table.emplace(CsvTable::create(run.paths.measured(), with_names({"step"}, stages)));
  }
  event_table.add(0).add("start").add("").add("120 weights, 138 heads").end_row();

  RandomSequence draw(RandomStream(shape.seed, "synthetic"), 0, 0);
  const double nan = std::numeric_limits<double>::quiet_NaN(), run_length = std::max(2000, shape.steps);
  const char* blame = shape.unbounded ? "layers.0.blocks.0.attn" : "";
  for (int step = 0; step < shape.steps; step++) {
    const double t = step / run_length;
    const bool dead = shape.diverges_at >= 0 && step >= shape.diverges_at;
    if (step == shape.diverges_at)
      event_table.add(step).add("non_finite").add("layers.2.blocks.3.attn").add("loss is nan, \"refused\"\nupdate left out").end_row();
    if (step == int(0.55 * run_length))
      event_table.add(step).add("entropy_collapse").add("layers.2.blocks.1.attn").add("head 4 fell below 5 % of ln(tokens)").end_row();
    if (step == int(0.7 * run_length)) event_table.add(step).add("norm_explosion").add("head").add("sigma doubled within 100 steps").end_row();
    const double loss = dead ? nan : 0.35 + 1.95 * std::exp(-5 * t) + 0.12 * draw.normal() * (0.5 + std::exp(-3 * t));
    network.move_to(t, draw);
    const double log10_bound = std::log10(network.value);
    step_table.add(step)
        .add(step / shape.steps_per_epoch)
        .add(std::int64_t(step + 1) * 64)
        .add(loss)
        .add(shape.lr * 0.5 * (1 + std::cos(3.14159 * std::min(1.0, t))))
        .add(dead ? nan : std::exp(0.3 * draw.normal() + 0.4 - t))
        .add(310 + 8 * draw.normal() - (step % 400 == 0 ? 150 : 0))
        .add(0.002 + 0.001 * draw.uniform())
        .add(log10_bound)
        .add(shape.unbounded ? "unbounded" : "estimate")
        .add(blame)
        .add(log10_bound - 0.6)
        .end_row();
    bound_table.add(step);
    for (const SyntheticPart* part : named) bound_table.add(part->value);
    bound_table.end_row();

    norm_table.add(step);
    for (std::size_t i = 0; i < columns.weights.size(); i++)
      norm_table.add(1 + 2.2 * (1 - std::exp(-3 * t)) * (0.2 + 0.8 * std::abs(std::sin(i * 0.9))) + 0.005 * draw.normal());
    for (std::size_t i = 0; i < columns.scales.size(); i++) norm_table.add(0.2 + 0.5 * t * (0.4 + double(i % 7) / 7));
    for (std::size_t i = 0; i < columns.weights.size(); i++)
      norm_table.add(dead ? nan : 0.2 * std::exp(0.4 * draw.normal() - 0.08 * double(i % 12)));
    norm_table.end_row();

    entropy_table.add(step);
    floor_table.add(step);
    for (std::size_t i = 0; i < columns.heads.size(); i++) {
      const double deep = double(i) / double(columns.heads.size()), collapse = i % 17 == 3 ? 1 / (1 + std::exp((t - 0.5) * 14)) : 1;
      const double value = std::log(49.0) * collapse *
                           (0.97 - 0.55 * (1 - std::exp(-3 * t)) * (0.25 + 0.75 * std::abs(std::sin(i * 2.3))) * (1.1 - 0.6 * deep));
      const double floor = value * std::exp(-0.3 - (6 + i % 5) * t);
      entropy_table.add(dead ? nan : std::max(floor, value + 0.02 * draw.normal()));
      floor_table.add(floor);
    }
    entropy_table.end_row();
    floor_table.end_row();
    if (!shape.evaluated || (step + 1) % shape.steps_per_epoch != 0) continue;
    const double top1 = 0.924 - 0.34 * std::exp(-4.5 * t);
    epoch_table.add(step / shape.steps_per_epoch)
        .add(step)
        .add(dead ? nan : 0.24 + 1.2 * std::exp(-4 * t))
        .add(dead ? 0.1 : top1 + 0.003 * draw.normal())
        .add(dead ? 0.5 : 0.998 - 0.08 * std::exp(-5 * t))
        .add(dead ? 0.1 : top1 + 0.006 - 0.06 * std::exp(-3 * t))
        .add(10000)
        .add(0)
        .end_row();
    if (!shape.proven) continue;
    certified_table->add(step).add(shape.unbounded ? "unbounded" : "certified").add(blame).add(log10_bound + 0.15).add(log10_bound - 0.4);
    for (const SyntheticPart* part : named) certified_table->add(part->value * (part == named.back() ? 1.41 : 1.012));
    certified_table->end_row();
    measured_table->add(step);
    for (const SyntheticPart& part : network.parts) measured_table->add((shape.unbounded ? 2 + t : part.value) * (part.kind == "SwinBlock" ? 0.45 : 0.9));
    measured_table->add(std::pow(10, 0.8 + 0.9 * t)).end_row();
  }
}
