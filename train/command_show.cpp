// command_show.cpp: `lipsgrad data show`: what training would see.
#include <filesystem>
#include <fmt/format.h>

#include "data/png.h"
#include "engine/durable_file.h"
#include "train/commands.h"
#include "train/contact_sheet.h"
#include "train/data_source.h"
#include "train/split.h"

namespace {

struct Shown {
  std::unique_ptr<Dataset> images;
  AugmentConfig augment;
  int batch_size = 32;
  uint64_t seed = 0;
};

Shown open_shown(const DataShowOptions& options) {
  const bool is_data = options.source.find('{') != std::string::npos || !options.source.ends_with(".toml");
  const std::string path = source_path(options.source);
  if (is_data && (path.find('{') != std::string::npos || std::filesystem::exists(path))) {
    if (!options.set.empty()) fail(Exit::usage, "--set goes with a recipe, and ", options.source, " is a folder of images");
    return {open_source(options.source), {}, std::min(options.images, 32)};
  }
  const Recipe recipe = load_recipe(options.source, options.set);
  if (recipe.model.family == "gpt") fail(Exit::config, options.source, " reads a text: there are no images to show");
  if (recipe.data.path.empty())
    fail(Exit::config, "data.path is empty: say where the data are, for instance --set data.path=datasets/imagenet");
  return {open_dataset(recipe.data.path, recipe.data.train), augment_config(recipe), recipe.data.batch_size, uint64_t(recipe.run.seed)};
}

std::string label_of(const Batch& batch, int i, const std::vector<std::string>& classes) {
  const auto name = [&](int i) { return batch.valid[size_t(i)] ? classes[size_t(batch.labels[size_t(i)])] : std::string("(damaged)"); };
  if (batch.mix.kind == Mix::none) return name(i);
  return fmt::format("{:.2f} {} + {}", batch.mix.lambda, name(i), name(batch.count - 1 - i));
}

}  // namespace

int run_data_show(const DataShowOptions& options) {
  const Shown shown = open_shown(options);
  const int images = int(std::min<int64_t>(options.images, shown.images->size()));
  const int batch_size = int(std::min<int64_t>(shown.batch_size, shown.images->size()));
  Loader loader(*shown.images, shown.augment, {batch_size, true, shown.seed});
  loader.start(options.epoch);
  ContactSheet sheet(images, shown.augment.image_size);
  Batch batch;
  int drawn = 0;
  while (drawn < images && loader.next(batch)) {
    const std::vector<uint8_t> pixels = finished_pixels(batch);
    const size_t image = size_t(batch.height) * batch.width * batch.channels;
    for (int i = 0; i < batch.count && drawn < images; i++, drawn++)
      sheet.add(&pixels[size_t(i) * image], batch.channels, label_of(batch, i, shown.images->classes()));
  }
  const std::vector<uint8_t> png = encode_png(sheet.picture());
  write_file_atomically(options.output, {reinterpret_cast<const char*>(png.data()), png.size()});
  fmt::print("{}: {} images of epoch {}, {} x {} pixels\n", options.output, drawn, options.epoch, sheet.picture().width, sheet.picture().height);
  return int(Exit::ok);
}
