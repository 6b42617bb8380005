// command_eval.cpp: `lipsgrad eval` and `lipsgrad predict`.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "train/commands.h"
#include "train/load_model.h"
#include "train/trainer.h"

int run_eval(const EvalOptions& options) {
  if (options.certify) return run_certify(options);
  const LoadedModel loaded = load_model({options.target, options.weights, options.set, options.ema});
  const Recipe& recipe = loaded.training->recipe;
  const Split data = open_split(recipe, false);
  BatchSource& loader = *data.source;
  Progress progress;
  if (!options.json) progress.start("eval", data.samples());
  const auto start = std::chrono::steady_clock::now();
  const EvalResult sums = evaluate_dataset(*loaded.training, loader, false, [&](int64_t done) {
    if (!options.json && progress.wants_update()) progress.update(done, "");
  });
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (!options.json) progress.finish();
  for (const DamagedImage& image : loader.damaged()) fmt::print(stderr, "damaged image left out: {}: {}\n", image.name, image.reason);
  const double n = double(std::max<int64_t>(1, sums.images));
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  if (options.json) {
    const nlohmann::json json{{"top1", sums.top1 / n}, {"top5", sums.top5 / n}, {"loss", sums.loss / n}, {"images", sums.images},
                              {"damaged", loader.damaged().size()}, {"images_per_s", double(sums.images) / seconds},
                              {"peak_memory_bytes", int64_t(usage.ru_maxrss) * 1024}, {"weights", loaded.weights}};
    fmt::print("{}\n", json.dump());
  } else {
    fmt::print("top-1 {:.2f} %  top-5 {:.2f} %  loss {:.4f}  {} images, {} damaged, {:.0f} images/s\n", 100 * sums.top1 / n, 100 * sums.top5 / n,
               sums.loss / n, sums.images, loader.damaged().size(), double(sums.images) / seconds);
  }
  return int(Exit::ok);
}

int run_predict(const PredictOptions& options) {
  const LoadedModel loaded = load_model({options.target, options.weights, options.set});
  const Recipe& recipe = loaded.training->recipe;
  const std::unique_ptr<Dataset> data = open_images(options.images);
  Renderer renderer(augment_config(recipe));
  Exit code = Exit::ok;   // of the last image that could not be read; the others are answered
  for (int64_t i = 0; i < data->size(); i++) {
    Batch batch{.count = 1, .height = recipe.model.img_size, .width = recipe.model.img_size, .channels = recipe.model.in_chans};
    batch.images.resize(size_t(batch.height) * batch.width * batch.channels);
    batch.labels = {0};
    batch.samples = {i};
    batch.valid = {1};
    Bytes bytes;
    try {
      data->read(i, bytes);
      renderer.evaluation(bytes, batch.images.data());
    } catch (const Error& error) {
      const std::string what = error.what(), name = data->name(i);
      fmt::print(stderr, "lipsgrad: {}\n", what.find(name) == std::string::npos ? name + ": " + what : what);
      code = error.exit;
      continue;
    }
    const Input input = make_input(batch, recipe, 0, 0, false);
    // Outside the trainer's workers an op uses all cores, which is what a single image wants.
    std::vector<double> p = softmax(loaded.training->logits(input)).values();
    std::vector<int> order(p.size());
    for (size_t k = 0; k < order.size(); k++) order[k] = int(k);
    std::sort(order.begin(), order.end(), [&](int a, int b) { return p[a] > p[b]; });
    fmt::print("{}\n", data->name(i));
    for (int k = 0; k < std::min<int>(options.top, int(order.size())); k++) {
      const int c = order[k];
      fmt::print("  {:6.2f} %  {}\n", 100 * p[c], size_t(c) < loaded.classes.size() ? loaded.classes[c] : std::to_string(c));
    }
  }
  return int(code);
}
