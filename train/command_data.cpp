// command_data.cpp: `lipsgrad data pack`, `verify` and `fetch`.
#include <filesystem>
#include <fmt/format.h>
#include <map>
#include <thread>

#include "data/pack.h"
#include "data/verify.h"
#include "train/commands.h"
#include "train/progress.h"

namespace {

// Datasets that a system package brings.
const std::map<std::string, std::string>& known_datasets() {
  static const std::map<std::string, std::string> known{{"fashion-mnist", "/usr/share/datasets/fashion-mnist"}};
  return known;
}

void pack_both(const std::string& source, const std::string& folder, int shard_images) {
  std::filesystem::path target = folder;
  for (const std::string split : {"train", "val"}) {
    const std::unique_ptr<Dataset> data = open_dataset(source, split);
    Progress progress;
    progress.start("packing " + split, data->size());
    PackOptions options;
    options.samples_per_shard = shard_images;
    options.progress = [&](int64_t done) { if (progress.wants_update()) progress.update(done, ""); };
    const Packed packed = pack(*data, (target / split).string(), options);
    progress.update(data->size(), "");
    progress.finish();
    fmt::print("{}: {} images of {} classes, {} shards, {:.1f} MB\n", (target / split).string(), packed.samples, data->classes().size(),
               packed.shards, double(packed.bytes) / 1e6);
  }
}

}  // namespace

int run_data_pack(const DataPackOptions& options) {
  const auto known = known_datasets().find(options.source);
  pack_both(known == known_datasets().end() ? options.source : known->second, options.folder, options.shard_images);
  return int(Exit::ok);
}

int run_data_fetch(const DataFetchOptions& options) {
  const auto known = known_datasets().find(options.name);
  if (known == known_datasets().end()) fail(Exit::usage, "no dataset is called ", options.name, "; known: fashion-mnist");
  if (!std::filesystem::exists(known->second))
    fail(Exit::no_input, known->second, " is missing: install the package dataset-", options.name, " (scripts/setup.sh does it)");
  pack_both(known->second, options.folder, 10000);
  return int(Exit::ok);
}

int run_data_verify(const DataVerifyOptions& options) {
  // A folder of splits, or of one dataset.
  std::vector<std::string> splits;
  for (const char* split : {"train", "val", "test"})
    if (std::filesystem::is_directory(std::filesystem::path(options.folder) / split)) splits.push_back(split);
  if (splits.empty()) splits.push_back("");
  size_t damaged = 0;
  for (const std::string& split : splits) {
    const std::unique_ptr<Dataset> data = open_dataset(options.folder, split);
    Progress progress;
    progress.start("verifying " + (split.empty() ? options.folder : split), data->size());
    const Verification result = verify(*data, int(std::max(1u, std::thread::hardware_concurrency())),
                                       [&](int64_t done) { if (progress.wants_update()) progress.update(done, ""); });
    progress.update(data->size(), "");
    progress.finish();
    for (const DamagedImage& image : result.damaged) fmt::print("damaged: {}: {}\n", image.name, image.reason);
    fmt::print("{}: {} images, {} damaged, {} with harmless irregularities\n", split.empty() ? options.folder : split, result.images,
               result.damaged.size(), result.irregular);
    damaged += result.damaged.size();
  }
  if (damaged > 0) fail(Exit::failure, options.folder, " has ", damaged, " damaged images, named above: replace or remove them");
  return int(Exit::ok);
}
