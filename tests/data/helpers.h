// helpers.h: small pictures, temporary folders and datasets in memory for the tests of data/.
#pragma once
#include <unistd.h>

#include <doctest/doctest.h>
#include <zlib.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "data/dataset.h"
#include "data/jpeg.h"
#include "data/tar.h"

namespace fs = std::filesystem;

struct TemporaryFolder {
  fs::path path;
  TemporaryFolder() {
    static std::atomic<int> count = 0;
    const bool in_memory = fs::is_directory("/dev/shm");  // where syncing costs nothing
    path =
        (in_memory ? "/dev/shm" : fs::temp_directory_path()) / fs::path(str("lipsgrad-data-", getpid(), "-", count++));
    fs::create_directories(path);
  }
  ~TemporaryFolder() { fs::remove_all(path); }
  std::string operator/(const std::string& name) const { return (path / name).string(); }
};

inline void write_bytes(const fs::path& path, std::span<const uint8_t> bytes) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()), std::streamsize(bytes.size()));
}

inline void write_text(const fs::path& path, const std::string& text) {
  write_bytes(path, {reinterpret_cast<const uint8_t*>(text.data()), text.size()});
}

inline Bytes read_bytes(const fs::path& path) {
  Bytes bytes;
  read_file(path.string(), bytes, 1 << 30);
  return bytes;
}

inline std::string fnv(std::span<const uint8_t> bytes) {
  uint64_t h = 0xcbf29ce484222325ull;
  for (const uint8_t b : bytes) h = (h ^ b) * 0x100000001b3ull;
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(h));
  return text;
}

// The picture of make_resize_golden.py.
inline Image picture(int height, int width, int channels) {
  Image image{height, width, channels, {}};
  const uint64_t count = uint64_t(height) * width * channels;
  for (uint64_t i = 0; i < count; i++) {
    const uint8_t noise = uint8_t((i + 1) * 2654435761u % (uint64_t(1) << 32) >> 24);
    const uint8_t ramp = uint8_t(i * 255 / std::max<uint64_t>(1, count - 1));
    image.pixels.push_back((i / 7) % 2 == 0 ? noise : ramp);
  }
  return image;
}

// The pictures of make_augment_golden.py, in colour.
inline Image golden_picture(const std::string& kind, int height, int width) {
  Image image = picture(height, width, 3);
  const uint64_t count = image.pixels.size();
  for (uint64_t i = 0; i < count; i++) {
    uint8_t& v = image.pixels[i];
    const uint8_t ramp = uint8_t(i * 255 / std::max<uint64_t>(1, count - 1));
    if (kind == "ramp") v = ramp;
    if (kind == "middle") v = uint8_t(40 + v * 160 / 255);
    if (kind == "coarse") v = uint8_t(ramp / 64 * 64);
    if (kind == "even") v = 77;
  }
  return image;
}

inline std::string hex(std::span<const uint8_t> bytes) {
  std::string text;
  for (const uint8_t b : bytes) {
    text += "0123456789abcdef"[b >> 4];
    text += "0123456789abcdef"[b & 15];
  }
  return text;
}

struct GoldenImage {
  Bytes bytes;
  std::string rgb_hash, gray_hash;
};

// tests/golden/images.txt: all are 19 x 23.
inline std::map<std::string, GoldenImage> golden_images() {
  std::ifstream file(SOURCE_DIR "/tests/golden/images.txt");
  std::map<std::string, GoldenImage> images;
  std::string name, rgb, gray, hex;
  for (int height, width; file >> name >> height >> width >> rgb >> gray >> hex;) {
    Bytes bytes;
    for (size_t i = 0; i < hex.size(); i += 2) bytes.push_back(uint8_t(std::stoi(hex.substr(i, 2), nullptr, 16)));
    images[name] = {bytes, rgb, gray};
  }
  REQUIRE(images.size() == 10);
  return images;
}

// A grayscale JPEG that differs from one number to the next.
inline Bytes small_jpeg(int number, int height = 28, int width = 28) {
  Bytes pixels(size_t(height) * width);
  for (int i = 0; i < height * width; i++) pixels[i] = uint8_t(number * 37 + i * (number % 5 + 1) / 3);
  return encode_gray_jpeg(pixels.data(), height, width, 90);
}

class MemoryDataset : public Dataset {
 public:
  explicit MemoryDataset(std::vector<Bytes> images, int classes = 4) : images(std::move(images)) {
    for (int c = 0; c < classes; c++) classes_.push_back(str("class", c));
  }
  int64_t size() const override { return int64_t(images.size()); }
  const std::vector<std::string>& classes() const override { return classes_; }
  int label(int64_t i) const override { return int(i % int64_t(classes_.size())); }
  std::string name(int64_t i) const override { return str("memory[", i, "]"); }
  void read(int64_t i, Bytes& out) const override { out = images[i]; }

  std::vector<Bytes> images;

 private:
  std::vector<std::string> classes_;
};

inline MemoryDataset small_dataset(int count) {
  std::vector<Bytes> images;
  for (int i = 0; i < count; i++) images.push_back(small_jpeg(i));
  return MemoryDataset(std::move(images));
}

// Runs it and gives the error it ends with; Exit::ok and "" when there is none.
struct Outcome {
  Exit exit = Exit::ok;
  std::string what;
  bool says(const std::string& part) const { return what.find(part) != std::string::npos; }
};
template <class F> Outcome outcome(F&& run) {
  try {
    run();
  } catch (const Error& error) {
    return {error.exit, error.what()};
  }
  return {};
}

// Files of the kinds that datasets are made of.
inline Outcome opening(const std::string& path, const std::string& split) {
  return outcome([&] { open_dataset(path, split); });
}

// An IDX file of this shape that holds so many values.
inline Bytes idx(const std::vector<int>& shape, size_t values) {
  const size_t header = 4 + 4 * shape.size();
  Bytes bytes(header + values);
  bytes[2] = 8;
  bytes[3] = uint8_t(shape.size());
  for (size_t i = 4; i < header; i++) bytes[i] = uint8_t(shape[(i - 4) / 4] >> (24 - i % 4 * 8));
  for (size_t i = 0; i < values; i++) bytes[header + i] = uint8_t(shape.size() == 1 ? i % 3 : i * 7);
  return bytes;
}

inline void write_gzip(const std::string& path, const Bytes& bytes) {
  gzFile file = gzopen(path.c_str(), "wb");
  REQUIRE(gzwrite(file, bytes.data(), unsigned(bytes.size())) == int(bytes.size()));
  gzclose(file);
}

struct Member {
  std::string name;
  Bytes content;
};

inline void write_tar(const std::string& path, const std::vector<Member>& members) {
  TarWriter tar(path);
  for (const Member& member : members) tar.add(member.name, member.content);
  tar.close();
}

inline Bytes text(const std::string& s) { return {s.begin(), s.end()}; }

inline std::vector<Member> two_samples() {
  return {{"a.jpg", small_jpeg(1)},
          {"a.cls", text("2")},
          {"b.png", golden_images()["rgb.png"].bytes},
          {"b.cls", text("0\n")}};
}
