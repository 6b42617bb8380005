// pack.cpp: images are prepared a block at a time by all threads, and written in order.
#include "data/pack.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "data/decode.h"
#include "data/jpeg.h"
#include "data/partial_folder.h"
#include "data/repack.h"
#include "data/tar.h"
#include "engine/random.h"
#include "engine/workers.h"

namespace {

constexpr int block = 64;  // images prepared together

std::span<const uint8_t> as_bytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

std::string numbered(const char* format, int64_t number) {
  char text[32];
  std::snprintf(text, sizeof text, format, static_cast<long long>(number));
  return text;
}

// An image as it goes into a shard.
struct Prepared {
  Bytes bytes;
  const char* extension = "jpg";
  bool repacked = false;
};

void encode(Bytes& pgm, int quality) {
  Decoder decoder;
  const Size size = decoder.open(pgm);
  Image image;
  decoder.read({0, 0, size.height, size.width}, 1, image);
  pgm = encode_gray_jpeg(image.pixels.data(), size.height, size.width, quality);
}

void prepare(const PackOptions& options, Prepared& image) {
  image.repacked = false;
  const ImageFormat format = image_format(image.bytes);
  image.extension = format == ImageFormat::png ? "png" : "jpg";  // what is damaged stays so: the loader and verify() name it
  if (format == ImageFormat::pgm) encode(image.bytes, options.quality);
  if (format != ImageFormat::jpeg || !options.restart_interval) return;
  if (auto repacked = repack_jpeg(image.bytes, *options.restart_interval)) {
    image.bytes = std::move(*repacked);
    image.repacked = true;
  }
}

// Which images and options: a pack that was interrupted goes on only where it would write the same.
std::string recipe_of(const Dataset& dataset, const PackOptions& options) {
  uint64_t hash = 0;
  const auto mix = [&](const std::string& text) { hash = hash * 0x9E3779B97F4A7C15ull + hash_name(text); };
  for (const std::string& name : dataset.classes()) mix(name);
  for (int64_t i = 0; i < dataset.size(); i++) mix(str(dataset.name(i), dataset.label(i)));
  nlohmann::ordered_json recipe{{"images", dataset.size()}, {"names_hash", hash}, {"quality", options.quality},
                                {"samples_per_shard", options.samples_per_shard}};
  if (options.restart_interval) recipe["restart_interval"] = *options.restart_interval;
  return recipe.dump(2) + "\n";
}

void write_class_names(const std::string& file, const std::vector<std::string>& classes) {
  std::string lines;
  for (const std::string& name : classes) {
    if (name.find_first_of("\r\n") != std::string::npos) fail(Exit::bad_data, "a class name holds a line end: ", name);
    lines += name + "\n";
  }
  OutputFile out(file);
  out.write(as_bytes(lines));
  out.close();
}

class Packer {
 public:
  Packer(const Dataset& dataset, const std::string& folder, const PackOptions& options)
      : dataset_(dataset), options_(options), folder_(folder, recipe_of(dataset, options)), workers_(options.threads) {}

  Packed run() {
    for (int64_t begin = 0; begin < dataset_.size(); begin += options_.samples_per_shard) {
      const int64_t end = std::min(dataset_.size(), begin + options_.samples_per_shard);
      const std::string name = numbered("%06lld.tar", packed_.shards++);
      if (folder_.is_finished(name)) take_over(name, end - begin);
      else write_shard(name, begin, end);
    }
    write_class_names(folder_.path_of("classes.txt"), dataset_.classes());
    folder_.keep();
    return packed_;
  }

 private:
  void count(int64_t images) {
    packed_.samples += images;
    if (options_.progress) options_.progress(packed_.samples);
  }

  void take_over(const std::string& name, int64_t images) {
    const InputFile file(folder_.path_of(name));
    TarReader reader(file);
    while (const auto member = reader.next())
      if (!member->name.ends_with(".cls")) packed_.bytes += member->size;
    packed_.finished_before++;
    count(images);
  }

  void write_shard(const std::string& name, int64_t begin, int64_t end) {
    TarWriter shard(folder_.path_while_writing(name));
    for (int64_t at = begin; at < end; at += block) {
      const int64_t images = std::min<int64_t>(block, end - at);
      workers_.run(images, [&](int64_t i) {
        dataset_.read(at + i, block_[size_t(i)].bytes);
        prepare(options_, block_[size_t(i)]);
      });
      for (int64_t i = 0; i < images; i++) add(shard, at + i, block_[size_t(i)]);
    }
    shard.close();
    folder_.finish(name);
  }

  void add(TarWriter& shard, int64_t sample, const Prepared& image) {
    const std::string key = numbered("%08lld", sample);
    shard.add(key + "." + image.extension, image.bytes);
    shard.add(key + ".cls", as_bytes(std::to_string(dataset_.label(sample))));
    packed_.bytes += int64_t(image.bytes.size());
    packed_.repacked += image.repacked;
    count(1);
  }

  const Dataset& dataset_;
  const PackOptions& options_;
  PartialFolder folder_;
  Workers workers_;
  std::array<Prepared, block> block_;
  Packed packed_;
};

}  // namespace

Packed pack(const Dataset& dataset, const std::string& folder, const PackOptions& options) {
  if (options.quality < 1 || options.quality > 100)
    fail(Exit::config, "the quality must lie in 1 .. 100, got ", options.quality);
  check(options.samples_per_shard > 0, "[pack] a shard must hold samples, got ", options.samples_per_shard);
  return Packer(dataset, folder, options).run();
}
