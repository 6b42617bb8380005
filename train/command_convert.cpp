// command_convert.cpp: `lipsgrad convert`: weights between the names of timm and of the original Swin and LipsFormer files (ours); and a
// trained model into a fused one for inference.
#include <filesystem>
#include <fmt/format.h>
#include <regex>

#include "engine/check.h"
#include "engine/durable_file.h"
#include "engine/safetensors.h"
#include "train/commands.h"
#include "train/fuse.h"
#include "train/load_model.h"
#include "train/weights.h"

namespace {

// timm keeps a stage's downsampling at the start of the next stage and the head's linear layer under head.fc.
std::string to_timm(const std::string& name) {
  static const std::regex down(R"(layers\.(\d+)\.downsample\.(.*))");
  std::smatch m;
  if (std::regex_match(name, m, down)) return fmt::format("layers.{}.downsample.{}", std::stoi(m[1]) + 1, m[2].str());
  if (name.starts_with("head.") && !name.starts_with("head.fc.")) return "head.fc." + name.substr(5);
  return name;
}

std::string to_swin(const std::string& name) {
  static const std::regex down(R"(layers\.(\d+)\.downsample\.(.*))");
  std::smatch m;
  if (std::regex_match(name, m, down)) {
    const int stage = std::stoi(m[1]);
    if (stage == 0) fail(Exit::bad_data, name, " is not a name of timm's: the file has Swin's names already");
    return fmt::format("layers.{}.downsample.{}", stage - 1, m[2].str());
  }
  if (name.starts_with("head.fc.")) return "head." + name.substr(8);
  return name;
}

// The model is folded and compared in f32, or in f64 if its recipe says so: bf16 would hide mistakes behind its rounding.
LoadedModel load_exact(const ConvertOptions& options, std::string& dtype) {
  ModelSource source{options.input, options.weights, {}, options.ema};
  LoadedModel loaded = load_model(source);
  dtype = loaded.training->recipe.run.dtype;
  if (dtype != "bf16") return loaded;
  source.set = {"run.dtype=f32"};
  return load_model(source);
}

int fuse_model(const ConvertOptions& options) {
  const std::string recipe_file = std::filesystem::path(options.output).replace_extension(".toml").string();
  if (recipe_file == options.output) fail(Exit::usage, "OUTPUT is the file of the fused weights; the recipe beside it is what ends in .toml");
  // The recipe that was trained may have that very name.
  for (const std::string& file : {options.output, recipe_file})
    if (std::filesystem::exists(file)) fail(Exit::cannot_create, file, " exists already: name another OUTPUT");
  std::string dtype;
  const LoadedModel loaded = load_exact(options, dtype);
  const std::unique_ptr<Training> fused = fuse(*loaded.training);
  const double difference = logit_difference(*loaded.training, *fused);
  if (!(difference <= (dtype == "f64" ? 1e-9 : 1e-3)))
    fail(Exit::failure, "the fused model's logits differ by ", difference,
         " of the largest one, so nothing was written: a channel's scale is too large or too small for ", fused->recipe.run.dtype);
  Recipe recipe = fused->recipe;
  recipe.run.dtype = dtype;
  ParameterStore& store = fused->model->store;
  std::map<std::string, SafetensorsEntry> out = weight_entries(store, store.values());
  out.merge(buffer_entries(store));
  write_safetensors(options.output, out, {{"format", "pt"}});
  write_file_atomically(recipe_file, to_toml(recipe));
  fmt::print("{} tensors written to {}, the recipe to {}\n", out.size(), options.output, recipe_file);
  fmt::print("logits of a made-up batch differ by at most {:.1e} of the largest one\n", difference);
  return int(Exit::ok);
}

}  // namespace

int run_convert(const ConvertOptions& options) {
  if (options.fuse) return fuse_model(options);
  const SafetensorsFile file(options.input);
  std::map<std::string, SafetensorsEntry> out;
  for (const auto& [name, entry] : file.tensors()) {
    if (name.ends_with("relative_position_index") || name.ends_with("attn_mask")) continue;
    const std::string renamed = options.to == "timm" ? to_timm(name) : to_swin(name);
    if (!out.emplace(renamed, entry).second) fail(Exit::bad_data, options.input, ": two tensors would be called ", renamed);
  }
  write_safetensors(options.output, out, file.metadata());
  fmt::print("{} tensors written to {}\n", out.size(), options.output);
  return int(Exit::ok);
}
