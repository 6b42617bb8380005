// durable_file.cpp: the system calls behind durable_file.h, each of them checked.
#include "engine/durable_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <utility>

#include "engine/check.h"

namespace fs = std::filesystem;

void fail_with_errno(int code, std::string_view doing, const std::string& path) {
  const bool reading = doing == "read";
  const bool making = doing == "create" || doing == "replace";
  switch (code) {
    case ENOSPC:
    case EDQUOT: fail(Exit::io, "disk full: could not ", doing, " ", path, "; free some space and run again");
    case EACCES:
    case EPERM:
    case EROFS: fail(reading ? Exit::no_input : Exit::cannot_create, "no permission to ", doing, " ", path);
    case ENOENT:
      if (making) fail(Exit::cannot_create, "could not ", doing, " ", path, ": its folder does not exist");
      fail(Exit::no_input, "could not ", doing, " ", path, ": it does not exist");
    case ENOTDIR:
    case EEXIST:
    case EISDIR:
    case ENAMETOOLONG: fail(Exit::cannot_create, "could not ", doing, " ", path, ": ", std::strerror(code));
    default: fail(Exit::io, "could not ", doing, " ", path, ": ", std::strerror(code));
  }
}

void write_all(int descriptor, std::string_view bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail_with_errno(errno, "write", path);
    bytes.remove_prefix(static_cast<size_t>(written));
  }
}

namespace {

// Closes on every way out.
struct Descriptor {
  int number;
  ~Descriptor() {
    if (number >= 0) ::close(number);
  }
};

int open_retrying(const std::string& path, int flags) {
  int descriptor;
  do descriptor = ::open(path.c_str(), flags | O_CLOEXEC, 0666);
  while (descriptor < 0 && errno == EINTR);
  return descriptor;
}

std::string folder_of(const std::string& path) {
  const fs::path folder = fs::path(path).parent_path();
  return folder.empty() ? "." : folder.string();
}

}  // namespace

void sync_descriptor(int descriptor, const std::string& path) {
  int result;
  do result = ::fsync(descriptor);
  while (result != 0 && errno == EINTR);
  // Some network file systems cannot sync a folder and say EINVAL: nothing is lost that they could keep.
  if (result != 0 && errno != EINVAL) fail_with_errno(errno, "write", path);
}

void sync_path(const std::string& path) {
  const std::string target = path.empty() ? "." : path;
  const Descriptor file{open_retrying(target, O_RDONLY)};
  if (file.number < 0 && errno == EACCES) return;   // a folder that may be written to but not read
  if (file.number < 0) fail_with_errno(errno, "open", target);
  sync_descriptor(file.number, target);
}

std::string read_file(const std::string& path) {
  const Descriptor file{open_retrying(path, O_RDONLY)};
  if (file.number < 0) fail_with_errno(errno, "read", path);
  std::string bytes;
  size_t used = 0;
  while (true) {
    if (used == bytes.size()) bytes.resize(std::max<size_t>(1 << 16, 2 * bytes.size()));
    const ssize_t got = ::read(file.number, bytes.data() + used, bytes.size() - used);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_with_errno(errno, "read", path);
    if (got == 0) break;
    used += static_cast<size_t>(got);
  }
  bytes.resize(used);
  return bytes;
}

DurableFile::DurableFile(const std::string& path) : path_(path) {
  static std::atomic<int> opened{0};
  do {  // a name that exists already was left by a process that died: take the next
    temporary_ = str(folder_of(path), "/.tmp-", getpid(), "-", opened++);
    descriptor_ = open_retrying(temporary_, O_WRONLY | O_CREAT | O_EXCL);
  } while (descriptor_ < 0 && errno == EEXIST);
  if (descriptor_ < 0) fail_with_errno(errno, "create", path);
}

DurableFile::~DurableFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void DurableFile::write(std::string_view bytes) { write_all(descriptor_, bytes, path_); }

void DurableFile::commit() {
  sync_descriptor(descriptor_, path_);
  if (::close(std::exchange(descriptor_, -1)) != 0) fail_with_errno(errno, "write", path_);
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) fail_with_errno(errno, "replace", path_);
  temporary_.clear();
  sync_path(folder_of(path_));   // the rename itself is durable only when the folder is
}

void write_file_atomically(const std::string& path, std::string_view bytes) {
  DurableFile file(path);
  file.write(bytes);
  file.commit();
}

void make_folders(const std::string& folder) {
  const fs::path path = folder;
  if (path.empty() || fs::is_directory(path)) return;
  const fs::path parent = path.has_filename() ? path.parent_path() : path.parent_path().parent_path();
  make_folders(parent);
  if (::mkdir(path.c_str(), 0777) != 0 && !(errno == EEXIST && fs::is_directory(path))) fail_with_errno(errno, "create", path);
  sync_path(parent);
}
