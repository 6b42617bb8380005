// safetensors.h: the file format of weights and tensors, read from a memory map and written whole or not at all.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

// One tensor of a file: packed, row-major, little-endian.
struct SafetensorsEntry {
  std::string dtype;           // as in the file: "F32", "F64", "BF16", "I64", "U8", ...
  std::vector<int64_t> shape;  // [] is a scalar
  const uint8_t* data;         // may be unaligned in files of other writers: memcpy out of it
  size_t bytes;
};

// An open file. The entries point into its memory map, so they live as long as it does.
// Throws Error(Exit::no_input) where the file cannot be read, Error(Exit::bad_data) where it breaks the format.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::string& path() const { return path_; }
  const std::map<std::string, SafetensorsEntry>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  void map_file();
  void parse_header();

  std::string path_;
  const uint8_t* map_ = nullptr;
  size_t size_ = 0;
  std::map<std::string, SafetensorsEntry> tensors_;
  std::map<std::string, std::string> metadata_;
};

// Byte for byte what the reference library writes: largest dtypes first, then by name.
void write_safetensors(const std::string& path, const std::map<std::string, SafetensorsEntry>& tensors,
                       const std::map<std::string, std::string>& metadata = {});
