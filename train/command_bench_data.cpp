// command_bench_data.cpp: `lipsgrad bench data`: how many images a second a thread gets ready for training, and what the time goes into.
//
// Everything is measured against libjpeg-turbo's full decode of the same files in the same run: each round runs every stage once over all images, from
// memory, with the same crops, and what is printed are medians over the rounds. The comparison is one of CPU time: other work on the
// machine changes images/s, and the comparison hardly.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <ctime>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <numeric>
#include <thread>

#include "data/jpeg.h"
#include "data/repack.h"
#include "data/restart_index.h"
#include "train/bench_loader.h"
#include "train/commands.h"
#include "train/data_source.h"
#include "train/progress.h"
#include "train/split.h"

namespace {

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v.empty() ? 0 : v[v.size() / 2];
}

double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return double(now.tv_sec) + 1e-9 * double(now.tv_nsec);
}

using Images = std::vector<Bytes>;

// One thread's tools.
struct Worker {
  Worker(const AugmentConfig& augment, const AugmentConfig& crop)
      : crop(crop), resizing(crop), augmenting(augment), out(size_t(augment.image_size) * augment.image_size * augment.channels) {}
  AugmentConfig crop;
  Decoder decoder;
  JpegReader jpeg;
  Image image;
  Renderer resizing, augmenting;
  std::vector<uint8_t> out;
};

// What is done to each image. Each stage does more than the one before.
enum class Work { libjpeg, full_decode, decode, resize, augment };

void process(Worker& w, Work work, std::span<const uint8_t> bytes, RandomSequence draw) {
  if (work == Work::resize) w.resizing.training(bytes, draw, w.out.data());
  if (work == Work::augment) w.augmenting.training(bytes, draw, w.out.data());
  if (work == Work::resize || work == Work::augment) return;
  if (work == Work::libjpeg) {
    const Size size = w.jpeg.open(bytes);
    w.image.pixels.resize(size_t(size.height) * size.width * w.crop.channels);
    w.jpeg.read_by_libjpeg({0, 0, size.height, size.width}, w.crop.channels, w.image.pixels.data());
    return;
  }
  const Size size = w.decoder.open(bytes);
  const Box whole{0, 0, size.height, size.width};
  w.decoder.read(work == Work::full_decode ? whole : training_view(w.crop, size, draw).source, w.crop.channels, w.image);
}

struct Stage {
  std::string name;
  Work work;
  const Images* images;
  std::vector<double> rates, cpu, relative;  // of each round: images/s, CPU seconds an image, those of the first stage, a full decode, / these

  nlohmann::json json() const {
    return {{"images_per_s", median(rates)}, {"cpu_ms_per_image", 1e3 * median(cpu)}, {"of_full_decode", median(relative)}};
  }
};

std::vector<Stage> stages_for(const Images& files, const Images& repacked, bool augments) {
  const bool jpegs = std::all_of(files.begin(), files.end(), [](const Bytes& file) { return image_format(file) == ImageFormat::jpeg; });
  std::vector<Stage> stages{{"full decode", Work::full_decode, &files}};
  if (jpegs) stages.insert(stages.begin(), {"full decode by libjpeg", Work::libjpeg, &files});
  for (const Images* images : {&files, &repacked}) {
    if (images->empty()) continue;
    const std::string of = images == &files ? "files: " : "repacked: ";
    stages.push_back({of + "decode", Work::decode, images});
    stages.push_back({of + "decode, resize", Work::resize, images});
    if (augments) stages.push_back({of + "decode, resize, augment", Work::augment, images});
  }
  return stages;
}

// Runs one stage over all images and notes how fast it was.
void measure(Stage& stage, std::deque<Worker>& workers, uint32_t round) {
  const RandomStream stream(0, "bench data");
  std::atomic<size_t> next = 0;
  std::vector<double> cpu(workers.size());
  const auto run = [&](size_t thread) {
    const double start = thread_seconds();
    for (size_t i = next++; i < stage.images->size(); i = next++) process(workers[thread], stage.work, (*stage.images)[i], {stream, round, i});
    cpu[thread] = thread_seconds() - start;
  };
  const auto start = std::chrono::steady_clock::now();
  {
    std::vector<std::jthread> helpers;
    for (size_t i = 1; i < workers.size(); i++) helpers.emplace_back(run, i);
    run(0);
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const double images = double(stage.images->size());
  stage.rates.push_back(images / seconds);
  stage.cpu.push_back(std::accumulate(cpu.begin(), cpu.end(), 0.0) / images);
}

std::vector<Stage> measure_all(std::vector<Stage> stages, const AugmentConfig& augment, const AugmentConfig& crop, int threads, int rounds) {
  std::deque<Worker> workers;
  for (int i = 0; i < threads; i++) workers.emplace_back(augment, crop);
  Progress progress;
  progress.start(fmt::format("{} thread{}", threads, threads > 1 ? "s" : ""), rounds);
  for (int round = -1; round < rounds; round++) {   // the first one warms up
    for (Stage& stage : stages) {
      measure(stage, workers, uint32_t(round + 1));
      if (round < 0) stage.rates.clear(), stage.cpu.clear();
      else stage.relative.push_back(stages.front().cpu.back() / stage.cpu.back());
    }
    progress.update(round + 1, "");
  }
  progress.finish();
  return stages;
}

// As many images as are wished, spread over the dataset; damaged ones are left out.
Images load(const Dataset& data, int wished) {
  const int64_t count = std::min<int64_t>(wished, data.size());
  Images images;
  Decoder decoder;
  Image pixels;
  for (int64_t i = 0; i < count; i++) {
    Bytes bytes;
    try {
      data.read(i * data.size() / count, bytes);
      const Size size = decoder.open(bytes);
      decoder.read({0, 0, size.height, size.width}, 3, pixels);
      images.push_back(std::move(bytes));
    } catch (const Error& error) {
      if (error.exit != Exit::bad_data) throw;
    }
  }
  if (images.empty()) fail(Exit::bad_data, "there is no intact image to decode");
  return images;
}

// What the loader would hold in memory for such images; the largest of them stands for all.
LoaderMemory memory_for(const Images& files, const AugmentConfig& augment, const LoaderConfig& loader) {
  int64_t file_bytes = 0, pixels = 0;
  Decoder decoder;
  for (const Bytes& file : files) {
    const Size size = decoder.open(file);
    file_bytes = std::max(file_bytes, int64_t(file.size()));
    pixels = std::max(pixels, int64_t(size.height) * size.width);
  }
  return loader_memory(augment, loader, file_bytes, pixels);
}

// Empty when the files are repacked already, or cannot be.
Images repack(const Images& files) {
  Images images;
  int changed = 0;
  for (const Bytes& file : files) {
    RestartIndex index;
    const bool jpeg = image_format(file) == ImageFormat::jpeg;
    auto repacked = jpeg && !read_restart_index(file, index) ? repack_jpeg(file, 0) : std::nullopt;
    changed += repacked.has_value();
    images.push_back(repacked ? std::move(*repacked) : file);
  }
  if (changed == 0) images.clear();
  return images;
}

int64_t bytes_in(const Images& images) {
  return std::accumulate(images.begin(), images.end(), int64_t(0), [](int64_t sum, const Bytes& b) { return sum + int64_t(b.size()); });
}

// What the stages of one kind of files spend the time of a whole image on.
void print_shares(const std::vector<Stage>& stages, const Images& images, const char* name) {
  std::vector<double> cpu;
  for (const Stage& stage : stages)
    if (stage.images == &images && stage.work >= Work::decode) cpu.push_back(median(stage.cpu));
  if (cpu.empty()) return;
  const double whole = cpu.back();
  fmt::print("{:<32} decode {:.0f} %, resize {:.0f} %", name, 100 * cpu[0] / whole, 100 * (cpu[1] - cpu[0]) / whole);
  if (cpu.size() > 2) fmt::print(", augment {:.0f} %", 100 * (cpu[2] - cpu[1]) / whole);
  fmt::print("\n");
}

}  // namespace

int run_bench_data(const BenchDataOptions& options) {
  const Recipe recipe = options.recipe.empty() ? Recipe{} : load_recipe(options.recipe, options.set);
  const AugmentConfig augment = options.recipe.empty() ? AugmentConfig{} : augment_config(recipe);
  AugmentConfig crop;   // the same crops and nothing else
  crop.image_size = augment.image_size, crop.channels = augment.channels, crop.interpolation = augment.interpolation;
  crop.scaled_decode = augment.scaled_decode;
  crop.random_resized_crop = augment.random_resized_crop, crop.crop_padding = augment.crop_padding;
  crop.scale_min = augment.scale_min, crop.scale_max = augment.scale_max;
  crop.ratio_min = augment.ratio_min, crop.ratio_max = augment.ratio_max;

  const std::unique_ptr<Dataset> data = open_source(options.source);
  const Images files = load(*data, options.images);
  const LoaderConfig loader{.batch_size = recipe.data.batch_size, .threads = recipe.data.workers};
  const LoaderMemory memory = memory_for(files, augment, loader);
  if (options.epochs > 0) return run_loader_epochs(*data, augment, loader, memory, options);
  const Images repacked = repack(files);
  const std::vector<Stage> stages = stages_for(files, repacked, !options.recipe.empty());
  const auto one = measure_all(stages, augment, crop, 1, options.rounds), two = measure_all(stages, augment, crop, 2, options.rounds);

  if (options.json) {
    nlohmann::json json{{"images", files.size()}, {"bytes", bytes_in(files)}, {"repacked_bytes", bytes_in(repacked)}, {"rounds", options.rounds}};
    json["loader_bytes"] = {{"batches", memory.batches}, {"decoding", memory.decoding}, {"inner", memory.inner}};
    for (size_t i = 0; i < stages.size(); i++) json["stages"][stages[i].name] = {{"one_thread", one[i].json()}, {"two_threads", two[i].json()}};
    fmt::print("{}\n", json.dump());
    return int(Exit::ok);
  }
  fmt::print("{} images, {:.1f} KB each", files.size(), 1e-3 * double(bytes_in(files)) / double(files.size()));
  if (!repacked.empty()) fmt::print(", {:.1f} KB repacked", 1e-3 * double(bytes_in(repacked)) / double(files.size()));
  fmt::print("; to {0} x {0} (medians of {1} rounds)\n\n", augment.image_size, options.rounds);
  fmt::print("{:<34}{:>10}{:>10}{:>10}{:>14}{:>12}\n", "", "images/s", "CPU ms", "of full", "2 threads", "of 1 thread");
  for (size_t i = 0; i < stages.size(); i++) {
    const double rate = median(one[i].rates), both = median(two[i].rates);
    fmt::print("{:<34}{:>10.0f}{:>10.2f}{:>10.2f}{:>14.0f}{:>12.2f}\n", one[i].name, rate, 1e3 * median(one[i].cpu), median(one[i].relative), both,
               both / rate);
  }
  fmt::print("\n");
  print_shares(one, files, "files:");
  print_shares(one, repacked, "repacked:");
  fmt::print("memory of the loader: {:.1f} MB for {} batches of {}, {:.1f} MB for {} threads at the largest of these images\n", 1e-6 * double(memory.batches),
             loader.prefetch + 1, loader.batch_size, 1e-6 * double(memory.decoding + memory.inner), std::max(1, loader.threads));
  return int(Exit::ok);
}
