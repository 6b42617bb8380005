// synthetic_run.h: a run folder like one that training leaves, for the tests of its readers.
#pragma once
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include <unistd.h>

#include "engine/random.h"
#include "train/csv_table.h"
#include "train/run_folder.h"

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
};

// Swin-T's heads (3, 6, 12, 24 in stages of 2, 2, 6, 2 blocks: 138 in 12 layers) and weights.
inline void write_synthetic_run(const std::filesystem::path& root, const SyntheticRun& shape) {
  const int depths[] = {2, 2, 6, 2}, heads[] = {3, 6, 12, 24};
  std::vector<std::string> bounds{"step", "patch_embed"}, norms{"step", "sigma.patch_embed.proj.weight"},
      entropy{"step"}, groups;
  nlohmann::json layers = nlohmann::json::array(), most;
  layers.push_back({{"name", "patch_embed"}, {"kind", "PatchEmbed"}});
  for (int stage = 0; stage < 4; stage++) {
    bounds.push_back("layers." + std::to_string(stage));
    layers.push_back({{"name", bounds.back()}, {"kind", "Stage"}});
    for (int block = 0; block < depths[stage]; block++) {
      const std::string name = "layers." + std::to_string(stage) + ".blocks." + std::to_string(block);
      groups.push_back("grad." + name);
      bounds.push_back(name);
      layers.push_back({{"name", name}, {"kind", "LipsFormerBlock"}});
      for (const char* part : {"attn", "mlp", "scale_layers.0", "dwconv_layers.0", "nin", "norm1", "norm2"})
        bounds.push_back(name + "." + part);
      layers.push_back(
          {{"name", name + ".attn"}, {"kind", shape.unbounded ? "DotProductAttention" : "CosineAttention"}});
      layers.push_back({{"name", name + ".mlp"}, {"kind", "Mlp"}});
      for (const char* weight :
           {"attn.qkv.weight", "attn.proj.weight", "mlp.fc1.weight", "mlp.fc2.weight", "nin.weight",
            "dwconv_layers.0.weight", "dwconv_layers.1.weight", "dwconv_layers.2.weight"}) {
        norms.push_back("sigma." + name + "." + weight);
      }
      norms.push_back("alpha_max." + name + ".alpha1");
      norms.push_back("alpha_max." + name + ".alpha2");
      for (int head = 0; head < heads[stage]; head++) entropy.push_back(name + ".attn." + std::to_string(head));
      most[name + ".attn"] = std::log(49.0);
    }
  }
  for (const char* name : {"norm", "head"}) bounds.push_back(name);
  norms.push_back("sigma.head.weight");
  norms.insert(norms.end(), groups.begin(), groups.end());

  RunFolder run = RunFolder::create(root);
  std::ofstream(run.paths.recipe())
      << "preset = \"lipsformer_swin_tiny\"\n\n[model]\nfamily = \"swin\"\nimg_size = 224\nembed_dim = 96\n"
      << "depths = [2, 2, 6, 2]\nnum_heads = [3, 6, 12, 24]\n\n[parts]\nnorm = \"center\"\nattention = \""
      << (shape.unbounded ? "dot" : "cosine")
      << "\"\nresidual = \"weighted\"\ninit = \"spectral\"\n\n[optimizer]\nname = \"adamw\"\nlr = " << shape.lr
      << "\nweight_decay = 0.05\n\n[schedule]\nepochs = 20\nwarmup_epochs = 0\n\n[run]\nseed = " << shape.seed << "\n";
  std::ofstream(run.paths.ledger()) << nlohmann::json{{"entropy_max", most}, {"layers", layers}}.dump();
  const char* command[] = {"lipsgrad", "train", "recipes/lipsformer_swin_tiny.toml", "--run", "runs/a"};
  add_session(run.paths, describe_session(command, 0));

  CsvTable step_table =
      CsvTable::create(run.paths.steps(), {"step", "epoch", "samples", "loss", "lr", "grad_norm", "images_per_s",
                                           "data_wait", "log10_bound_l2", "bound_kind", "bound_blame"});
  CsvTable bound_table = CsvTable::create(run.paths.lipschitz(), bounds),
           norm_table = CsvTable::create(run.paths.norms(), norms);
  CsvTable entropy_table = CsvTable::create(run.paths.entropy(), entropy);
  CsvTable epoch_table =
      CsvTable::create(run.paths.epochs(), {"epoch", "step", "loss", "top1", "top5", "ema_top1", "images", "damaged"});
  CsvTable event_table = CsvTable::create(run.paths.events(), {"step", "kind", "layer", "message"});
  event_table.add(0).add("start").add("").add("120 weights, 138 heads").end_row();

  RandomSequence draw(RandomStream(shape.seed, "synthetic"), 0, 0);
  const double nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
  for (int step = 0; step < shape.steps; step++) {
    const double t = step / 2000.0;
    const bool dead = shape.diverges_at >= 0 && step >= shape.diverges_at;
    if (step == shape.diverges_at)
      event_table.add(step)
          .add("non_finite")
          .add("layers.2.blocks.3.attn")
          .add("loss is nan, \"refused\"\nupdate left out")
          .end_row();
    const double loss = dead ? nan : 0.35 + 1.95 * std::exp(-5 * t) + 0.12 * draw.normal() * (0.5 + std::exp(-3 * t));
    const double log10_bound = (9 + 4 * t + 0.02 * draw.normal()) / std::log(10.0);
    step_table.add(step)
        .add(step / shape.steps_per_epoch)
        .add(std::int64_t(step + 1) * 64)
        .add(loss)
        .add(shape.lr * 0.5 * (1 + std::cos(3.14159 * std::min(1.0, t))))
        .add(dead ? nan : std::exp(0.3 * draw.normal() + 0.4 - t))
        .add(310 + 8 * draw.normal() - (step % 400 == 0 ? 150 : 0))
        .add(0.002 + 0.001 * draw.uniform())
        .add(shape.unbounded ? inf : log10_bound)
        .add(shape.unbounded ? "unbounded" : "estimate")
        .add(shape.unbounded ? "layers.0.blocks.0.attn" : "")
        .end_row();
    bound_table.add(step);
    for (std::size_t i = 1; i < bounds.size(); i++) {
      const bool attention = bounds[i].ends_with(".attn");
      const bool outer = std::isdigit(bounds[i].back()) && bounds[i].find("_layers") == std::string::npos;
      const double kind = bounds[i].ends_with("nin")                     ? 0.7
                          : attention                                    ? 2.4
                          : bounds[i].find(".norm") != std::string::npos ? 1
                                                                         : 1.3;
      bound_table.add(shape.unbounded && (attention || outer)
                          ? inf
                          : kind * (1 + 0.5 * t * std::sin(i * 1.7)) + 0.004 * draw.normal());
    }
    bound_table.end_row();
    norm_table.add(step);
    for (std::size_t i = 1; i < norms.size(); i++) {
      const bool gradient = norms[i].starts_with("grad."), scale = norms[i].starts_with("alpha");
      const double value = gradient ? 0.2 * std::exp(0.4 * draw.normal() - 0.08 * double(i % 12))
                           : scale  ? 0.2 + 0.5 * t * (0.4 + double(i % 7) / 7)
                                    : 1 + 2.2 * (1 - std::exp(-3 * t)) * (0.2 + 0.8 * std::abs(std::sin(i * 0.9))) +
                                         0.005 * draw.normal();
      norm_table.add(dead && gradient ? nan : value);
    }
    norm_table.end_row();
    entropy_table.add(step);
    for (std::size_t i = 1; i < entropy.size(); i++) {
      const double deep = double(i) / double(entropy.size()),
                   collapse = i % 17 == 3 ? 1 / (1 + std::exp((t - 0.5) * 14)) : 1;
      const double value =
          std::log(49.0) *
          (0.97 - 0.55 * (1 - std::exp(-3 * t)) * (0.25 + 0.75 * std::abs(std::sin(i * 2.3))) * (1.1 - 0.6 * deep)) *
          collapse;
      entropy_table.add(dead ? nan : value + 0.02 * draw.normal());
    }
    entropy_table.end_row();
    if (shape.evaluated && (step + 1) % shape.steps_per_epoch == 0) {
      const double top1 = 92.4 - 34 * std::exp(-4.5 * t);
      epoch_table.add(step / shape.steps_per_epoch)
          .add(step)
          .add(dead ? nan : 0.24 + 1.2 * std::exp(-4 * t))
          .add(dead ? 10.0 : top1 + 0.3 * draw.normal())
          .add(dead ? 50.0 : 99.8 - 8 * std::exp(-5 * t))
          .add(dead ? 10.0 : top1 + 0.6 - 6 * std::exp(-3 * t))
          .add(10000)
          .add(0)
          .end_row();
    }
  }
}
