// durable_file.cpp: the system calls behind durable_file.h, each of them checked.
#include "train/durable_file.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include "engine/check.h"

namespace fs = std::filesystem;

void fail_with_errno(int code, std::string_view doing, const fs::path& path) {
  switch (code) {
    case ENOSPC:
    case EDQUOT: fail(Exit::io, "disk full: could not ", doing, " ", path.string(), "; free some space and run again");
    case EACCES:
    case EPERM:
    case EROFS: {
      const bool reading = doing == "read";
      fail(reading ? Exit::no_input : Exit::cannot_create, "no permission to ", doing, " ", path.string());
    }
    case ENOENT: fail(Exit::no_input, "could not ", doing, " ", path.string(), ": it does not exist");
    case ENOTDIR:
    case EEXIST:
    case EISDIR: fail(Exit::cannot_create, "could not ", doing, " ", path.string(), ": ", std::strerror(code));
    default: fail(Exit::io, "could not ", doing, " ", path.string(), ": ", std::strerror(code));
  }
}

void write_all(int descriptor, std::string_view bytes, const fs::path& path) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail_with_errno(errno, "write", path);
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
}

namespace {

// Closes on every way out; close() is called by hand where its result matters.
struct Descriptor {
  int number;
  ~Descriptor() {
    if (number >= 0) ::close(number);
  }
  void close(const fs::path& path) {
    const int result = ::close(std::exchange(number, -1));
    if (result != 0) fail_with_errno(errno, "write", path);
  }
};

int open_retrying(const fs::path& path, int flags, mode_t mode = 0) {
  int descriptor;
  do descriptor = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  while (descriptor < 0 && errno == EINTR);
  return descriptor;
}

void sync_descriptor(int descriptor, const fs::path& path) {
  int result;
  do result = ::fsync(descriptor);
  while (result != 0 && errno == EINTR);
  // Some network file systems cannot sync a folder and say EINVAL: nothing is lost that they could keep.
  if (result != 0 && errno != EINVAL) fail_with_errno(errno, "write", path);
}

}  // namespace

void sync_path(const fs::path& path) {
  const fs::path target = path.empty() ? fs::path(".") : path;
  Descriptor file{open_retrying(target, O_RDONLY)};
  if (file.number < 0) fail_with_errno(errno, "open", target);
  sync_descriptor(file.number, target);
}

std::string read_file(const fs::path& path) {
  Descriptor file{open_retrying(path, O_RDONLY)};
  if (file.number < 0) fail_with_errno(errno, "read", path);
  std::string bytes;
  std::size_t used = 0;
  while (true) {
    if (used == bytes.size()) bytes.resize(std::max<std::size_t>(1 << 16, 2 * bytes.size()));
    const ssize_t got = ::read(file.number, bytes.data() + used, bytes.size() - used);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_with_errno(errno, "read", path);
    if (got == 0) break;
    used += static_cast<std::size_t>(got);
  }
  bytes.resize(used);
  return bytes;
}

void write_file_atomically(const fs::path& path, std::string_view bytes) {
  const fs::path temporary = path.string() + ".tmp-" + std::to_string(::getpid());
  Descriptor file{open_retrying(temporary, O_WRONLY | O_CREAT | O_TRUNC, 0666)};
  if (file.number < 0) fail_with_errno(errno, "create", path);
  try {
    write_all(file.number, bytes, path);
    sync_descriptor(file.number, path);
    file.close(path);
    if (::rename(temporary.c_str(), path.c_str()) != 0) fail_with_errno(errno, "replace", path);
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  sync_path(path.parent_path());
}

void make_folders(const fs::path& folder) {
  if (folder.empty() || fs::is_directory(folder)) return;
  const fs::path parent = folder.has_filename() ? folder.parent_path() : folder.parent_path().parent_path();
  make_folders(parent);
  if (::mkdir(folder.c_str(), 0777) != 0 && !(errno == EEXIST && fs::is_directory(folder))) {
    fail_with_errno(errno, "create", folder);
  }
  sync_path(parent);
}
