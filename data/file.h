// file.h: files that say what went wrong. Reading at an offset is thread-safe; writing is durable.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/check.h"

using Bytes = std::vector<uint8_t>;

class InputFile {
 public:
  explicit InputFile(const std::string& path);  // Exit::no_input when it is missing or may not be read
  ~InputFile();
  InputFile(InputFile&&) noexcept;
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  int64_t size() const { return size_; }
  const std::string& path() const { return path_; }
  // Reads up to `length` bytes at `offset`; fewer only at the end of the file.
  size_t read_at(int64_t offset, uint8_t* out, size_t length) const;

 private:
  std::string path_;
  int descriptor_ = -1;
  int64_t size_ = 0;
};

// Room for `count` elements and no more, where resize() may take twice as much. The old ones are lost.
template <class T> void resize_exactly(std::vector<T>& v, size_t count) {
  if (count > v.capacity()) {
    v = std::vector<T>();
    v.reserve(count);
  }
  v.resize(count);
}

// The whole file. One that is larger than `limit` is refused with Exit::bad_data.
void read_file(const std::string& path, Bytes& out, int64_t limit);

// A new file. Exit::cannot_create when it cannot be made, Exit::io when the disk is full or fails.
class OutputFile {
 public:
  explicit OutputFile(const std::string& path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(std::span<const uint8_t> bytes);
  void close();  // everything is on the disk when this returns

 private:
  void flush();
  std::string path_;
  int descriptor_ = -1;
  Bytes buffer_;
};

// The names in a folder, sorted by bytes. Exit::no_input when it is missing or may not be read.
std::vector<std::string> list_folder(const std::string& path);
