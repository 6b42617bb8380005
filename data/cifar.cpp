// cifar.cpp: the binary version of CIFAR-10 and CIFAR-100, held in memory as it lies on the disk.
#include <zlib.h>

#include <algorithm>
#include <array>

#include "data/sources.h"

namespace {

constexpr int side = 32, channels = 3;
constexpr size_t pixels = side * side * channels;
constexpr size_t row = 1 + side * channels;             // of a PNG: how it is filtered (not at all), then the pixels
constexpr size_t raw = row * side;

void append(Bytes& out, std::span<const uint8_t> bytes) { out.insert(out.end(), bytes.begin(), bytes.end()); }

void append_number(Bytes& out, uint32_t n) {
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(uint8_t(n >> shift));
}

void append_chunk(Bytes& out, const char* type, std::span<const uint8_t> content) {
  append_number(out, uint32_t(content.size()));
  const size_t at = out.size();
  out.insert(out.end(), type, type + 4);
  append(out, content);
  append_number(out, uint32_t(crc32_z(0, &out[at], out.size() - at)));
}

// A PNG whose pixels are stored, not compressed: as quick to write as to copy.
void write_png(const uint8_t* planes, Bytes& out) {
  std::array<uint8_t, raw> rows;
  uint8_t* to = rows.data();
  for (int y = 0; y < side; y++) {
    *to++ = 0;
    for (int x = 0; x < side; x++)
      for (int c = 0; c < channels; c++) *to++ = planes[(c * side + y) * side + x];
  }
  constexpr std::array<uint8_t, 8> signature = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
  constexpr std::array<uint8_t, 13> header = {0, 0, 0, side, 0, 0, 0, side, 8, 2};   // 8 bits, RGB
  // zlib without compression: its head, one last block that is stored, its length twice, and a checksum behind.
  Bytes stream = {0x78, 0x01, 1, uint8_t(raw), uint8_t(raw >> 8), uint8_t(~raw), uint8_t(~raw >> 8)};
  append(stream, rows);
  append_number(stream, uint32_t(adler32_z(1, rows.data(), rows.size())));
  out.assign(signature.begin(), signature.end());
  append_chunk(out, "IHDR", header);
  append_chunk(out, "IDAT", stream);
  append_chunk(out, "IEND", {});
}

class Cifar : public Dataset {
 public:
  Cifar(const std::vector<std::string>& files, int label_bytes, const std::string& class_names)
      : files_(files), label_bytes_(size_t(label_bytes)), classes_(read_lines(class_names)) {
    std::erase(classes_, "");
    for (const std::string& file : files) add(file);
  }

  int64_t size() const override { return ends_.back(); }
  const std::vector<std::string>& classes() const override { return classes_; }
  int label(int64_t i) const override { return records_[size_t(i) * record() + label_bytes_ - 1]; }
  std::string name(int64_t i) const override {
    const size_t file = size_t(std::upper_bound(ends_.begin(), ends_.end(), i) - ends_.begin());
    return str(files_[file], "[", i - (file == 0 ? 0 : ends_[file - 1]), "]");
  }
  void read(int64_t i, Bytes& out) const override { write_png(&records_[size_t(i) * record() + label_bytes_], out); }

 private:
  size_t record() const { return label_bytes_ + pixels; }

  void add(const std::string& path) {
    Bytes bytes;
    read_file(path, bytes, int64_t(1) << 30);
    if (bytes.empty() || bytes.size() % record() != 0)
      fail(Exit::bad_data, path, ": is truncated or not a CIFAR file: ", bytes.size(), " bytes are no whole number of records of ", record());
    append(records_, bytes);
    for (int64_t i = ends_.empty() ? 0 : ends_.back(); i < int64_t(records_.size() / record()); i++)
      if (label(i) >= int(classes_.size())) fail(Exit::bad_data, path, ": has the label ", label(i), ", but there are ", classes_.size(), " class names");
    ends_.push_back(int64_t(records_.size() / record()));
  }

  std::vector<std::string> files_;
  const size_t label_bytes_;
  std::vector<std::string> classes_;
  std::vector<int64_t> ends_;   // images up to the end of each file
  Bytes records_;
};

}  // namespace

std::unique_ptr<Dataset> open_cifar(const std::vector<std::string>& files, int label_bytes, const std::string& class_names) {
  return std::make_unique<Cifar>(files, label_bytes, class_names);
}
