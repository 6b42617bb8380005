// file.cpp: POSIX files behind clear errors.
#include "data/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "engine/durable_file.h"

namespace {

std::string reason(int code) { return std::generic_category().message(code); }

constexpr size_t write_buffer = 1 << 20;

}  // namespace

InputFile::InputFile(const std::string& path) : path_(path) {
  descriptor_ = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor_ < 0) fail(Exit::no_input, path, ": cannot be opened: ", reason(errno));
  struct stat status;
  const bool known = fstat(descriptor_, &status) == 0;
  if (!known || !S_ISREG(status.st_mode)) {
    ::close(descriptor_);
    fail(Exit::no_input, path, ": is not a file");
  }
  size_ = status.st_size;
}

InputFile::InputFile(InputFile&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)), size_(other.size_) {}

InputFile::~InputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

size_t InputFile::read_at(int64_t offset, uint8_t* out, size_t length) const {
  size_t done = 0;
  while (done < length) {
    const ssize_t n = pread(descriptor_, out + done, length - done, offset + int64_t(done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(Exit::io, path_, ": cannot be read: ", reason(errno));
    if (n == 0) break;
    done += size_t(n);
  }
  return done;
}

void read_file(const std::string& path, Bytes& out, int64_t limit) {
  const InputFile file(path);
  if (file.size() > limit) fail(Exit::bad_data, path, ": ", file.size(), " bytes are more than the limit of ", limit);
  resize_exactly(out, size_t(file.size()));
  if (file.read_at(0, out.data(), out.size()) != out.size())
    fail(Exit::io, path, ": became shorter while it was read");
}

OutputFile::OutputFile(const std::string& path) : path_(path) {
  descriptor_ = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor_ < 0) fail_with_errno(errno, "create", path);
  buffer_.reserve(write_buffer);
}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void OutputFile::write(std::span<const uint8_t> bytes) {
  buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
  if (buffer_.size() >= write_buffer) flush();
}

void OutputFile::flush() {
  write_all(descriptor_, {reinterpret_cast<const char*>(buffer_.data()), buffer_.size()}, path_);
  buffer_.clear();
}

void OutputFile::close() {
  flush();
  sync_descriptor(descriptor_, path_);
  if (::close(std::exchange(descriptor_, -1)) != 0) fail_with_errno(errno, "write", path_);
}

std::vector<std::string> list_folder(const std::string& path) {
  std::error_code error;
  std::filesystem::directory_iterator entry(path, error), end;
  std::vector<std::string> names;
  while (!error && entry != end) {
    names.push_back(entry->path().filename().string());
    entry.increment(error);
  }
  if (error) fail(Exit::no_input, path, ": cannot be read as a folder: ", error.message());
  std::sort(names.begin(), names.end());
  return names;
}
