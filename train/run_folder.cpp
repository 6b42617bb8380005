// run_folder.cpp: no run is ever written over, and never written by two.
#include "train/run_folder.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <fmt/format.h>

#include "engine/check.h"
#include "engine/durable_file.h"
#include "train/sealed_folder.h"

namespace fs = std::filesystem;

namespace {

// A lock on the folder itself leaves no file behind, and goes away with the process however it ends.
int lock_folder(const fs::path& root) {
  const int descriptor = ::open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) fail_with_errno(errno, "open", root);
  if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    ::close(descriptor);
    fail(Exit::cannot_create, root.string(),
         " is being written by another lipsgrad: wait for it, or choose another folder with --run");
  }
  return descriptor;   // a file system without locks is trusted
}

}  // namespace

fs::path RunPaths::checkpoint(std::int64_t step) const { return checkpoints() / fmt::format("step-{:08}", step); }

bool RunPaths::holds_run() const {
  const bool has_checkpoints = fs::exists(checkpoints()) && !fs::is_empty(checkpoints());   // else a run that never began
  return fs::exists(recipe()) || fs::exists(steps()) || fs::exists(environment()) || has_checkpoints;
}

std::vector<std::int64_t> RunPaths::sealed_checkpoints() const {
  std::vector<std::int64_t> steps;
  if (!fs::is_directory(checkpoints())) return steps;
  for (const fs::directory_entry& entry : fs::directory_iterator(checkpoints())) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("step-")) continue;
    std::int64_t step = 0;
    const auto [end, error] = std::from_chars(name.data() + 5, name.data() + name.size(), step);
    const bool is_step = error == std::errc() && end == name.data() + name.size();
    if (is_step && is_sealed(entry.path())) steps.push_back(step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

RunFolder::RunFolder(const fs::path& root, int lock) : paths{root}, lock_(lock) {}
RunFolder::RunFolder(RunFolder&& other) noexcept : paths(other.paths), lock_(std::exchange(other.lock_, -1)) {}
RunFolder::~RunFolder() {
  if (lock_ >= 0) ::close(lock_);
}

RunFolder RunFolder::create(const fs::path& root) {
  make_folders(root);
  RunFolder run(root, lock_folder(root));
  if (run.paths.holds_run()) {
    fail(Exit::cannot_create, root.string(),
         " already holds a run: continue it with --resume, or choose another folder with --run");
  }
  make_folders(run.paths.checkpoints());
  return run;
}

RunFolder RunFolder::of_other_rank(const fs::path& root) { return RunFolder(root, -1); }

RunFolder RunFolder::resume(const fs::path& root) {
  if (!RunPaths{root}.holds_run()) {
    fail(Exit::no_input, root.string(), " holds no run to continue: leave out --resume to start one");
  }
  RunFolder run(root, lock_folder(root));
  make_folders(run.paths.checkpoints());
  return run;
}
