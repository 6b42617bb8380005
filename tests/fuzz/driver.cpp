// driver.cpp: feeds mutated inputs to the fuzz targets, and makes what they stumble over small.
//
//   fuzz run FOLDER SEED IMAGES OTHERS [TARGET...]   so many inputs shared among the targets of each kind (those of the named ones are run);
//                                        findings go to FOLDER
//   fuzz input TARGET SEED NUMBER        writes one input to the standard output
//   fuzz try TARGET FILE                 exits with 1 where the file is a finding
//   fuzz minimise TARGET FILE            makes the file as small and as empty as the finding allows
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "mutate.h"
#include "trial.h"

// A crash must be a crash; memory is watched in trial.cpp.
extern "C" const char* __asan_default_options() { return "detect_leaks=0:allocator_may_return_null=0:max_allocation_size_mb=4096"; }
extern "C" const char* __ubsan_default_options() { return "print_stacktrace=1:halt_on_error=1"; }

namespace {

namespace fs = std::filesystem;

constexpr uint64_t inputs_a_process = 2000;
constexpr int most_findings = 20;   // of one target: the rest is the same

Bytes load(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail(Exit::no_input, path, ": cannot be read");
  return {std::istreambuf_iterator<char>(file), {}};
}

void store(const std::string& path, const Bytes& bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()), std::streamsize(bytes.size()));
  if (!file.flush()) fail(Exit::cannot_create, path, ": cannot be written");
}

int run_target(const FuzzTarget& target, const std::string& folder, uint64_t seed, uint64_t count) {
  const auto began = std::chrono::steady_clock::now();
  int findings = 0;
  uint64_t number = 0;
  while (number < count && findings < most_findings) {
    const auto input = [&](uint64_t n) { return mutated(target, seed, n); };
    const Trial trial = try_inputs(target, number, std::min(count, number + inputs_a_process), input, false);
    number = trial.stopped_at;
    if (trial.why.empty()) continue;
    const std::string path = folder + "/" + target.name + "-" + std::to_string(seed) + "-" + std::to_string(number);
    store(path, input(number));
    std::printf("finding %s: %s\n", path.c_str(), trial.why.c_str());
    findings++, number++;
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
  std::printf("%-10s %8llu inputs, %d findings, %.0f s\n", target.name.c_str(), static_cast<unsigned long long>(number), findings, took.count());
  std::fflush(stdout);
  return findings;
}

int run(const std::string& folder, uint64_t seed, uint64_t images, uint64_t others, std::span<const std::string> names) {
  fs::create_directories(folder);
  const auto& targets = fuzz_targets();
  const uint64_t image_targets = uint64_t(std::count_if(targets.begin(), targets.end(), [](const FuzzTarget& t) { return t.image; }));
  for (const std::string& name : names) fuzz_target(name);   // is there
  int findings = 0;
  for (const FuzzTarget& target : targets) {
    if (!names.empty() && std::find(names.begin(), names.end(), target.name) == names.end()) continue;
    const uint64_t total = target.image ? images : others, among = target.image ? image_targets : targets.size() - image_targets;
    findings += run_target(target, folder, seed, (total + among - 1) / among);
  }
  std::printf("fuzz: %d findings\n", findings);
  return findings > 0;
}

std::string reason(const FuzzTarget& target, const Bytes& bytes, bool quiet) {
  return try_inputs(target, 0, 1, [&](uint64_t) { return bytes; }, quiet).why;
}

int try_file(const FuzzTarget& target, const std::string& path) {
  const std::string why = reason(target, load(path), false);
  std::printf("%s: %s\n", path.c_str(), why.empty() ? "no finding" : why.c_str());
  return !why.empty();
}

// Without blocks of halving length, then with zeros in their places, as long as that leaves the same finding.
int minimise(const FuzzTarget& target, const std::string& path) {
  Bytes bytes = load(path);
  const std::string why = reason(target, bytes, true);
  if (why.empty()) fail(Exit::usage, path, ": is no finding of ", target.name);
  const auto keep = [&](Bytes smaller) {
    if (smaller == bytes || reason(target, smaller, true) != why) return false;
    bytes = std::move(smaller);
    return true;
  };
  for (size_t length = bytes.size() / 2; length > 0; length /= 2)
    for (size_t at = 0; at + length <= bytes.size();) {
      Bytes without = bytes;
      without.erase(without.begin() + long(at), without.begin() + long(at + length));
      if (!keep(std::move(without))) at += length;
    }
  for (size_t length = 16; length > 0; length /= 4)
    for (size_t at = 0; at + length <= bytes.size(); at += length) {
      Bytes emptied = bytes;
      std::fill_n(emptied.begin() + long(at), length, uint8_t(0));
      keep(std::move(emptied));
    }
  store(path, bytes);
  std::printf("%s: %zu bytes: %s\n", path.c_str(), bytes.size(), why.c_str());
  return 0;
}

int command(const std::vector<std::string>& words) {
  const std::string name = words.empty() ? "" : words[0];
  if (name == "run" && words.size() >= 5)
    return run(words[1], std::stoull(words[2]), std::stoull(words[3]), std::stoull(words[4]), std::span(words).subspan(5));
  if (name == "try" && words.size() == 3) return try_file(fuzz_target(words[1]), words[2]);
  if (name == "minimise" && words.size() == 3) return minimise(fuzz_target(words[1]), words[2]);
  if (name == "input" && words.size() == 4) {
    const Bytes bytes = mutated(fuzz_target(words[1]), std::stoull(words[2]), std::stoull(words[3]));
    return std::fwrite(bytes.data(), 1, bytes.size(), stdout) != bytes.size();
  }
  fail(Exit::usage, "fuzz run FOLDER SEED IMAGES OTHERS [TARGET...] | input TARGET SEED NUMBER | try TARGET FILE | minimise TARGET FILE");
}

}  // namespace

int main(int count, char** words) {
  try {
    return command({words + 1, words + count});
  } catch (const Error& error) {
    std::fprintf(stderr, "fuzz: %s\n", error.what());
    return int(error.exit);
  }
}
