// durable_file: whole or absent, sealed or not counted, and what is told when it cannot be done.
#include "engine/durable_file.h"

#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <fstream>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <doctest/doctest.h>

#include "engine/check.h"
#include "train/append_file.h"
#include "train/sealed_folder.h"
#include "synthetic_run.h"

namespace fs = std::filesystem;

namespace {

Exit exit_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.exit;
  }
  return Exit::ok;
}

int files_in(const fs::path& folder) {
  return static_cast<int>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

}  // namespace

TEST_CASE("durable file: replaces the old, leaves nothing beside it") {
  const TestFolder folder("atomic");
  const fs::path path = folder.path / "a.json";
  const std::string large(3 << 20, 'x');
  write_file_atomically(path, "old");
  write_file_atomically(path, large);
  CHECK(read_file(path) == large);
  write_file_atomically(path, "");
  CHECK(read_file(path).empty());
  CHECK(files_in(folder.path) == 1);
}

TEST_CASE("durable file: a failed write keeps the old file and removes the half-written one") {
  const TestFolder folder("half");
  const fs::path path = folder.path / "a.json";
  write_file_atomically(path, "old");
  const pid_t child = ::fork();   // a limit on file sizes stands for a full disk
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{1000, 1000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    const Exit result = exit_of([&] { write_file_atomically(path, std::string(5000, 'x')); });
    ::_exit(result == Exit::io ? 0 : 1);
  }
  int status = 1;
  ::waitpid(child, &status, 0);
  CHECK(status == 0);
  CHECK(read_file(path) == "old");
  CHECK(files_in(folder.path) == 1);
}

TEST_CASE("append file: a row that does not fit is taken back whole") {
  const TestFolder folder("append");
  const fs::path path = folder.path / "t.csv";
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{1000, 1000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    AppendFile file(path, AppendFile::Open::fresh);
    file.append(std::string(900, 'x') + "\n");
    const Exit result = exit_of([&] { file.append(std::string(900, 'y') + "\n"); });
    ::_exit(result == Exit::io ? 0 : 1);
  }
  int status = 1;
  ::waitpid(child, &status, 0);
  CHECK(status == 0);
  CHECK(read_file(path) == std::string(900, 'x') + "\n");
}

TEST_CASE("durable file: what errno means to the user") {
  const auto exit_for = [](int code, const char* doing) {
    return exit_of([&] { fail_with_errno(code, doing, "f"); });
  };
  CHECK(exit_for(ENOSPC, "write") == Exit::io);
  CHECK(exit_for(EIO, "write") == Exit::io);
  CHECK(exit_for(EACCES, "create") == Exit::cannot_create);
  CHECK(exit_for(EACCES, "read") == Exit::no_input);
  CHECK(exit_for(EROFS, "create") == Exit::cannot_create);
  CHECK_THROWS_WITH_AS(fail_with_errno(ENOSPC, "write", "runs/a/steps.csv"),
                       doctest::Contains("disk full: could not write runs/a/steps.csv"), Error);
  CHECK(exit_of([] { read_file("/nowhere/at/all"); }) == Exit::no_input);
  CHECK(exit_of([] { make_folders("/dev/null/x"); }) == Exit::cannot_create);
}

TEST_CASE("durable file: a full device is told as such") {
  const int full = ::open("/dev/full", O_WRONLY);
  REQUIRE(full >= 0);
  CHECK_THROWS_WITH_AS(write_all(full, "x", "runs/a/steps.csv"), doctest::Contains("disk full"), Error);
  ::close(full);
}

TEST_CASE("sealed folder: counts only while every file is as the manifest says") {
  const TestFolder folder("sealed");
  const fs::path step = folder.path / "checkpoints" / "step-00000001";
  make_folders(step / "ranks");
  write_file_atomically(step / "model.safetensors", std::string(1000, 'm'));
  write_file_atomically(step / "ranks" / "0.json", "{}");
  CHECK(!is_sealed(step));
  CHECK(exit_of([&] { verify_sealed(step); }) == Exit::bad_data);
  seal_folder(step);
  CHECK(is_sealed(step));
  CHECK_NOTHROW(verify_sealed(step));

  write_file_atomically(step / "model.safetensors", std::string(999, 'm') + "n");
  CHECK(is_sealed(step));
  CHECK_THROWS_WITH_AS(verify_sealed(step), doctest::Contains("model.safetensors is damaged"), Error);
  write_file_atomically(step / "model.safetensors", "short");
  CHECK(!is_sealed(step));
  std::ofstream(step / "manifest.json") << "{\"files\": {\"a\": 3}}";
  CHECK(!is_sealed(step));
  std::ofstream(step / "manifest.json") << "{\"files";
  CHECK(!is_sealed(step));
  remove_sealed(step);
  CHECK(!fs::exists(step));
  CHECK_NOTHROW(remove_sealed(step));
}
