// command_data.cpp: `lipsgrad data pack`, `verify` and `fetch`.
#include <algorithm>
#include <filesystem>
#include <fmt/format.h>
#include <thread>

#include "data/pack.h"
#include "data/verify.h"
#include "train/commands.h"
#include "train/data_source.h"
#include "train/progress.h"

namespace {

int all_threads() { return int(std::max(1u, std::thread::hardware_concurrency())); }

// "auto" or a number of MCUs; nothing when the files are to stay as they are.
std::optional<int> restart_interval(const std::string& text) {
  if (text.empty()) return {};
  if (text == "auto") return 0;
  const bool digits = text.size() <= 5 && text.find_first_not_of("0123456789") == std::string::npos;
  if (!digits || std::stoi(text) < 1) fail(Exit::usage, "--restart-intervals takes a number of MCUs from 1 on, or auto, not '", text, "'");
  return std::stoi(text);
}

void pack_splits(const std::string& source, const std::string& folder, PackOptions options) {
  options.threads = all_threads();
  const std::string path = source_path(source);
  for (const std::string& split : splits_of(path)) {
    const std::unique_ptr<Dataset> data = open_dataset(path, split);
    const std::string target = split.empty() ? folder : (std::filesystem::path(folder) / split).string();
    Progress progress;
    progress.start("packing " + (split.empty() ? source : split), data->size());
    options.progress = [&](int64_t done) { if (progress.wants_update()) progress.update(done, ""); };
    const Packed packed = pack(*data, target, options);
    progress.update(data->size(), "");
    progress.finish();
    fmt::print("{}: {} images of {} classes, {} shards, {:.1f} MB", target, packed.samples, data->classes().size(), packed.shards,
               double(packed.bytes) / 1e6);
    if (packed.finished_before > 0) fmt::print(" ({} shards were there from an interrupted run)", packed.finished_before);
    else if (options.restart_interval) fmt::print(", {} repacked", packed.repacked);
    fmt::print("\n");
  }
}

}  // namespace

int run_data_pack(const DataPackOptions& options) {
  PackOptions how;
  how.samples_per_shard = options.shard_images;
  how.restart_interval = restart_interval(options.restart_intervals);
  pack_splits(options.source, options.folder, how);
  return int(Exit::ok);
}

int run_data_fetch(const DataFetchOptions& options) {
  const std::string path = source_path(options.name);
  if (path == options.name) fail(Exit::usage, "no dataset is called ", options.name, "; known: fashion-mnist");
  if (!std::filesystem::exists(path))
    fail(Exit::no_input, path, " is missing: install the package dataset-", options.name, " (scripts/setup.sh does it)");
  pack_splits(options.name, options.folder, {});
  return int(Exit::ok);
}

int run_data_verify(const DataVerifyOptions& options) {
  size_t damaged = 0;
  int64_t different = 0;
  for (const std::string& split : splits_of(options.folder)) {
    std::vector<DamagedImage> shards;
    const std::unique_ptr<Dataset> data = open_dataset(options.folder, split, &shards);
    const std::string name = split.empty() ? options.folder : split;
    Progress progress;
    progress.start("verifying " + name, data->size());
    const Verification result = verify(*data, {all_threads(), options.regions, [&](int64_t done) {
                                                 if (progress.wants_update()) progress.update(done, "");
                                               }});
    progress.update(data->size(), "");
    progress.finish();
    for (const DamagedImage& shard : shards) fmt::print("damaged shard: {}\n", shard.reason);
    for (const DamagedImage& image : result.damaged) fmt::print("damaged: {}: {}\n", image.name, image.reason);
    fmt::print("{}: {} images, {} damaged, {} with harmless irregularities", name, result.images, result.damaged.size(), result.irregular);
    fmt::print("{}\n", shards.empty() ? "" : fmt::format(", {} damaged shards", shards.size()));
    if (options.regions > 0)
      fmt::print("{}: {} regions decoded alone, from the files and repacked: {} differ from the whole\n", name, result.regions, result.different);
    damaged += result.damaged.size() + shards.size();
    different += result.different;
  }
  if (damaged > 0) fail(Exit::failure, options.folder, " has ", damaged, " damaged files, named above: replace or remove them");
  if (different > 0) fail(Exit::internal, different, " regions had other pixels than the whole image");
  return int(Exit::ok);
}
