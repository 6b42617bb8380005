// durable_file.cpp: temporary file, fsync, rename, fsync of the folder; every refusal of the system becomes an Error.
#include "engine/durable_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "engine/check.h"

namespace {

bool is_refusal(int error) {
  return error == EACCES || error == EPERM || error == EROFS || error == ENOENT || error == ENOTDIR ||
         error == EISDIR || error == ENAMETOOLONG;
}

[[noreturn]] void fail_writing(const std::string& path, int error) {
  fail(is_refusal(error) ? Exit::cannot_create : Exit::io, path, ": cannot be written: ", std::strerror(error));
}

std::string folder_of(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return path.substr(0, slash + 1);
}

}  // namespace

DurableFile::DurableFile(const std::string& path) : path(path) {
  static std::atomic<int> opened{0};
  const std::string stem = folder_of(path) == "." ? "." : folder_of(path) + ".";
  do {  // a name that exists already was left by a process that died: take the next
    temporary = str(stem, "tmp-", getpid(), "-", opened++);
    file = open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } while (file < 0 && (errno == EEXIST || errno == EINTR));
  if (file < 0) fail_writing(path, errno);
}

DurableFile::~DurableFile() {
  if (file >= 0) close(file);
  if (!temporary.empty()) unlink(temporary.c_str());
}

void DurableFile::write(const void* data, size_t bytes) {
  const char* next = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = ::write(file, next, bytes);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail_writing(path, errno);
    next += written;
    bytes -= static_cast<size_t>(written);
  }
}

void DurableFile::commit() {
  if (fsync(file) != 0) fail_writing(path, errno);
  const int closed = close(file);
  file = -1;
  if (closed != 0) fail_writing(path, errno);
  if (std::rename(temporary.c_str(), path.c_str()) != 0) fail_writing(path, errno);
  temporary.clear();
  // The rename itself is durable only when the folder is. A file system that cannot sync a folder says EINVAL.
  const int folder = open(folder_of(path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return;  // a folder that may be written to but not read
  const int synced = fsync(folder);
  const int error = errno;
  close(folder);
  if (synced != 0 && error != EINVAL) fail_writing(path, error);
}

void write_durably(const std::string& path, std::string_view text) {
  DurableFile file(path);
  file.write(text);
  file.commit();
}
