// append_file.cpp: O_APPEND, one write a piece.
#include "train/append_file.h"

#include <cerrno>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include "engine/durable_file.h"

AppendFile::AppendFile(const std::filesystem::path& path, Open how) : path_(path) {
  const int exclusive = how == Open::fresh ? O_CREAT | O_EXCL : 0;
  do descriptor_ = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC | exclusive, 0666);
  while (descriptor_ < 0 && errno == EINTR);
  if (descriptor_ < 0) fail_with_errno(errno, how == Open::fresh ? "create" : "write", path);
  struct stat status;
  if (::fstat(descriptor_, &status) != 0) fail_with_errno(errno, "write", path);
  size_ = status.st_size;
}

AppendFile::AppendFile(AppendFile&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)), size_(other.size_) {}

AppendFile::~AppendFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void AppendFile::append(std::string_view bytes) {
  try {
    write_all(descriptor_, bytes, path_);
  } catch (...) {
    [[maybe_unused]] const int result = ::ftruncate(descriptor_, size_);   // the first error is the one to tell
    throw;
  }
  size_ += static_cast<std::int64_t>(bytes.size());
}

void AppendFile::truncate(std::int64_t size) {
  if (::ftruncate(descriptor_, size) != 0) fail_with_errno(errno, "write", path_);
  size_ = size;
}

void AppendFile::sync() {
  if (::fsync(descriptor_) != 0) fail_with_errno(errno, "write", path_);
}
