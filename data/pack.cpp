// pack.cpp: everything is written into FOLDER.part, which is renamed when it is complete and on the disk.
#include "data/pack.h"

#include <cerrno>
#include <cstdio>
#include <filesystem>

#include "data/decode.h"
#include "data/jpeg.h"
#include "data/tar.h"
#include "engine/durable_file.h"

namespace fs = std::filesystem;

namespace {

std::span<const uint8_t> as_bytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

std::string numbered(const char* format, int64_t number) {
  char text[32];
  std::snprintf(text, sizeof text, format, static_cast<long long>(number));
  return text;
}

// A folder that disappears again unless it is kept.
class PartialFolder {
 public:
  explicit PartialFolder(const fs::path& target) : target_(target), path_(target.string() + ".part") {
    std::error_code error;
    if (fs::exists(target_, error) && !(fs::is_directory(target_, error) && fs::is_empty(target_, error))) {
      fail(Exit::cannot_create, target_.string(),
           ": is there already and is not an empty folder; remove it or choose another");
    }
    remove();  // what an interrupted run left
    fs::create_directories(path_, error);
    const bool full = error == std::errc::no_space_on_device;
    if (error) fail(full ? Exit::io : Exit::cannot_create, path_.string(), ": cannot be created: ", error.message());
  }
  ~PartialFolder() {
    if (!kept_) remove();
  }
  PartialFolder(const PartialFolder&) = delete;

  const fs::path& path() const { return path_; }

  void keep() {
    sync_path(path_.string());
    std::error_code error;
    fs::rename(path_, target_, error);
    if (error) fail(Exit::cannot_create, target_.string(), ": cannot be created: ", error.message());
    kept_ = true;
    sync_path(fs::absolute(target_).parent_path().string());
  }

 private:
  // Only what pack() writes: a folder of somebody else that happens to have this name keeps its files.
  void remove() {
    std::error_code ignored;
    for (fs::directory_iterator entry(path_, ignored), end; entry != end; entry.increment(ignored)) {
      const fs::path file = entry->path();
      if (file.extension() == ".tar" || file.filename() == "classes.txt") fs::remove(file, ignored);
    }
    fs::remove(path_, ignored);
  }

  fs::path target_, path_;
  bool kept_ = false;
};

// The image as it goes into a shard, and its extension.
const char* prepare(Bytes& bytes, Decoder& decoder, int quality) {
  switch (image_format(bytes)) {
    case ImageFormat::jpeg: return "jpg";
    case ImageFormat::png: return "png";
    case ImageFormat::unknown: return "jpg";  // damaged, and stays so: the loader and verify() name it
    case ImageFormat::pgm: break;
  }
  const Size size = decoder.open(bytes);
  Image image;
  decoder.read({0, 0, size.height, size.width}, 1, image);
  bytes = encode_gray_jpeg(image.pixels.data(), size.height, size.width, quality);
  return "jpg";
}

void write_class_names(const fs::path& file, const std::vector<std::string>& classes) {
  std::string lines;
  for (const std::string& name : classes) {
    if (name.find_first_of("\r\n") != std::string::npos) fail(Exit::bad_data, "a class name holds a line end: ", name);
    lines += name + "\n";
  }
  OutputFile out(file.string());
  out.write(as_bytes(lines));
  out.close();
}

}  // namespace

Packed pack(const Dataset& dataset, const std::string& folder, const PackOptions& options) {
  if (options.quality < 1 || options.quality > 100)
    fail(Exit::config, "the quality must lie in 1 .. 100, got ", options.quality);
  check(options.samples_per_shard > 0, "[pack] a shard must hold samples, got ", options.samples_per_shard);
  fs::path target = fs::path(folder).lexically_normal();
  if (!target.has_filename()) target = target.parent_path();
  PartialFolder partial(target);
  Packed packed;
  Decoder decoder;
  Bytes bytes;
  for (int64_t i = 0; i < dataset.size();) {
    TarWriter shard((partial.path() / numbered("%06lld.tar", packed.shards)).string());
    for (int n = 0; n < options.samples_per_shard && i < dataset.size(); n++, i++) {
      dataset.read(i, bytes);
      const std::string key = numbered("%08lld", i);
      const char* extension = prepare(bytes, decoder, options.quality);
      shard.add(key + "." + extension, bytes);
      shard.add(key + ".cls", as_bytes(std::to_string(dataset.label(i))));
      packed.bytes += int64_t(bytes.size());
      packed.samples++;
      if (options.progress) options.progress(packed.samples);
    }
    shard.close();
    packed.shards++;
  }
  write_class_names(partial.path() / "classes.txt", dataset.classes());
  partial.keep();
  return packed;
}
