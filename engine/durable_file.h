// durable_file.h: files that are whole or absent whatever happens to the machine, and what the system's refusals mean to the user.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>

// What errno means to the user: "disk full: could not write runs/a/steps.csv ...", with the exit code that fits.
[[noreturn]] void fail_with_errno(int code, std::string_view doing, const std::string& path);

// All of it, through short writes and interrupting signals.
void write_all(int descriptor, std::string_view bytes, const std::string& path);
// fsync of an open file, and of a file or folder by its name.
void sync_descriptor(int descriptor, const std::string& path);
void sync_path(const std::string& path);

std::string read_file(const std::string& path);

// A file that is written beside its target, synced, then renamed over it. Until commit() returns, a file that already stands under
// `path` is untouched; a writer that is destroyed before that leaves nothing behind.
class DurableFile {
 public:
  explicit DurableFile(const std::string& path);
  ~DurableFile();
  DurableFile(const DurableFile&) = delete;
  DurableFile& operator=(const DurableFile&) = delete;

  void write(const void* data, size_t bytes) { write({static_cast<const char*>(data), bytes}); }
  void write(std::string_view bytes);
  void commit();

 private:
  std::string path_, temporary_;
  int descriptor_ = -1;
};

// The whole of a small file in one call: the old one or the new one, never half of one.
void write_file_atomically(const std::string& path, std::string_view bytes);

// mkdir -p that survives a power loss.
void make_folders(const std::string& folder);
