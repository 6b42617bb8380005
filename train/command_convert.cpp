// command_convert.cpp: `lipsgrad convert`: weights between the names of timm and of the original Swin and LipsFormer files (ours).
#include <fmt/format.h>
#include <regex>

#include "engine/check.h"
#include "engine/safetensors.h"
#include "train/commands.h"

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

}  // namespace

int run_convert(const ConvertOptions& options) {
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
