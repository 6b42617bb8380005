// append_file.h: a file that only grows, one whole piece at a time.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string_view>

class AppendFile {
 public:
  enum class Open { fresh, existing };   // fresh: must not exist yet
  AppendFile(const std::filesystem::path& path, Open how);
  AppendFile(AppendFile&& other) noexcept;
  AppendFile& operator=(AppendFile&&) = delete;
  ~AppendFile();

  void append(std::string_view bytes);   // whole or not at all: a piece cut short by a full disk is taken back
  void truncate(std::int64_t size);
  void sync();                           // until the bytes are on the disk
  std::int64_t size() const { return size_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  int descriptor_;
  std::int64_t size_;
};
