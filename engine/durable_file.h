// durable_file.h: a file that appears whole or not at all: written beside its target, synced, then renamed over it.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>

// Throws Error(Exit::cannot_create) where the file may not be made, Error(Exit::io) where the disk refuses its bytes.
// Until commit() returns, a file that already stands under `path` is untouched; a writer that is destroyed before
// that leaves nothing behind.
class DurableFile {
 public:
  explicit DurableFile(const std::string& path);
  ~DurableFile();
  DurableFile(const DurableFile&) = delete;
  DurableFile& operator=(const DurableFile&) = delete;

  void write(const void* data, size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  void commit();

 private:
  std::string path, temporary;
  int file = -1;
};

// The whole of a small file in one call.
void write_durably(const std::string& path, std::string_view text);
