// bench_loader.cpp: the system's own count of a process's memory (proc(5)), before and after each epoch.
#include "train/bench_loader.h"

#include <malloc.h>

#include <chrono>
#include <cstdio>
#include <fmt/format.h>
#include <fstream>
#include <nlohmann/json.hpp>

namespace {

// A line of /proc/self/status, in bytes.
int64_t status(const std::string& name) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(name + ":")) return std::stoll(line.substr(name.size() + 1)) * 1024;
  return 0;
}

void forget_peak() { std::ofstream("/proc/self/clear_refs") << 5; }

}  // namespace

int run_loader_epochs(const Dataset& data, const AugmentConfig& augment, const LoaderConfig& config, const LoaderMemory& stated,
                      const BenchDataOptions& options) {
  malloc_trim(0);
  const int64_t before = status("VmRSS");
  nlohmann::json json{{"images", data.size()}, {"stated_bytes", stated.total()}};
  if (!options.json)
    fmt::print("{} images, {} threads, batches of {}: at most {:.1f} MB stated ({:.1f} batches, {:.1f} decoding, {:.1f} inside libjpeg and the resizer)\n",
               data.size(), config.threads, config.batch_size, 1e-6 * double(stated.total()), 1e-6 * double(stated.batches), 1e-6 * double(stated.decoding),
               1e-6 * double(stated.inner));
  std::fflush(stdout);
  Loader loader(data, augment, config);
  Batch batch;
  for (int epoch = 0; epoch < options.epochs; epoch++) {
    forget_peak();
    const auto start = std::chrono::steady_clock::now();
    int64_t images = 0;
    loader.start(epoch);
    while (loader.next(batch)) images += batch.count;
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    const int64_t peak = status("VmHWM") - before, held = status("VmRSS") - before;
    json["epochs"].push_back({{"images", images}, {"seconds", seconds}, {"peak_bytes", peak}, {"held_bytes", held}, {"damaged", loader.damaged().size()}});
    if (!options.json)
      fmt::print("epoch {}: {} images, {:.0f} images/s, grown by {:.1f} MB at most, by {:.1f} MB at its end\n", epoch, images, double(images) / seconds,
                 1e-6 * double(peak), 1e-6 * double(held));
    std::fflush(stdout);
  }
  if (options.json) fmt::print("{}\n", json.dump());
  return int(Exit::ok);
}
