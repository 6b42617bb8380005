// command_look.cpp: `lipsgrad inspect`, `report` and `devices`: looking at what is there.
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "engine/check.h"
#include "engine/device.h"
#include "engine/small_gemm.h"
#include "train/commands.h"
#include "train/figures.h"
#include "train/report.h"
#include "train/run_folder.h"

int run_inspect(const InspectCommand& options) {
  fmt::print("{}", inspect_run(options.run, options.show));
  return int(Exit::ok);
}

int run_report(const ReportOptions& options) {
  std::vector<std::filesystem::path> runs(options.runs.begin(), options.runs.end());
  const std::filesystem::path output = options.output.empty() ? RunPaths{runs.front()}.report() : std::filesystem::path(options.output);
  write_report(runs, output);
  fmt::print("{}\n", output.string());
  if (options.figures.empty()) return int(Exit::ok);
  for (const std::string& name : write_figures(runs, options.figures))
    fmt::print("{}.svg .pdf .png\n", (std::filesystem::path(options.figures) / name).string());
  return int(Exit::ok);
}

namespace {

std::string sentence_of(const DeviceInfo& gpu) {
  const double gib = 1 << 30;
  std::string said = fmt::format("{}, compute capability {}.{}, {} multiprocessors, {:.1f} GiB ({:.1f} free)", gpu.name, gpu.major, gpu.minor,
                                 gpu.multiprocessors, double(gpu.memory_bytes) / gib, double(gpu.free_bytes) / gib);
  return gpu.unusable.empty() ? said : said + "; cannot be used: " + gpu.unusable;
}

}  // namespace

int run_devices(const DevicesOptions& options) {
  nlohmann::json host = describe_session({}, 0);
  for (const char* of_a_run : {"command", "first_step", "start_time"}) host.erase(of_a_run);
  const std::string vectors = str(8 * vector_bytes, "-bit");
  std::string none;
  const std::vector<DeviceInfo> gpus = find_devices(none);
  if (options.json) {
    nlohmann::json list = nlohmann::json::array();
    for (const DeviceInfo& gpu : gpus)
      list.push_back({{"name", gpu.name}, {"compute_capability", fmt::format("{}.{}", gpu.major, gpu.minor)}, {"multiprocessors", gpu.multiprocessors},
                      {"memory_bytes", gpu.memory_bytes}, {"free_bytes", gpu.free_bytes}, {"unusable", gpu.unusable}});
    fmt::print("{}\n", nlohmann::json{{"cpu", host}, {"vectors", vectors}, {"cuda", list}, {"cuda_reason", none}}.dump());
    return int(Exit::ok);
  }
  fmt::print("cpu    built for {} vectors\n", vectors);
  for (const auto& [key, value] : host.items())
    if (value.is_primitive()) fmt::print("       {}: {}\n", key, value.is_string() ? value.get<std::string>() : value.dump());
  if (gpus.empty()) fmt::print("cuda   none: {}\n", none);
  for (size_t i = 0; i < gpus.size(); i++) fmt::print("cuda:{} {}\n", i, sentence_of(gpus[i]));
  return int(Exit::ok);
}
