// command_look.cpp: `lipsgrad inspect`, `report` and `devices`: looking at what is there.
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "engine/check.h"
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

int run_devices(const DevicesOptions& options) {
  nlohmann::json host = describe_session({}, 0);
  for (const char* of_a_run : {"command", "first_step", "start_time"}) host.erase(of_a_run);
  const std::string vectors = str(8 * vector_bytes, "-bit");
  if (options.json) {
    fmt::print("{}\n", nlohmann::json{{"cpu", host}, {"vectors", vectors}, {"cuda", nullptr}, {"cuda_reason", "built without CUDA"}}.dump());
    return int(Exit::ok);
  }
  fmt::print("cpu    built for {} vectors\n", vectors);
  for (const auto& [key, value] : host.items())
    if (value.is_primitive()) fmt::print("       {}: {}\n", key, value.is_string() ? value.get<std::string>() : value.dump());
  fmt::print("cuda   none: this binary was built without CUDA\n");
  return int(Exit::ok);
}
