// tiny_run.h: a training run of a second: a few dozen small JPEG images and a model of two blocks.
#pragma once
#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

#include "data/jpeg.h"
#include "train/signals.h"
#include "train/trainer.h"

namespace fs = std::filesystem;

// A folder of the test's own, gone when the test is over; in memory where that can be had, for a run syncs its files often.
struct ScratchFolder {
  fs::path path;
  ScratchFolder() {
    static std::atomic<int> count = 0;
    const fs::path memory = "/dev/shm";
    path = (fs::is_directory(memory) ? memory : fs::temp_directory_path()) / str("lipsgrad-train-", getpid(), "-", count++);
    fs::create_directories(path);
  }
  ~ScratchFolder() { fs::remove_all(path); }
  ScratchFolder(const ScratchFolder&) = delete;
  fs::path operator/(const std::string& name) const { return path / name; }
};

// While it lives, stdout and stderr of this process go nowhere.
class Silence {
 public:
  Silence() {
    std::fflush(nullptr);
    const int nowhere = ::open("/dev/null", O_WRONLY);
    for (int i = 0; i < 2; i++) {
      saved_[i] = ::dup(1 + i);
      ::dup2(nowhere, 1 + i);
    }
    ::close(nowhere);
  }
  ~Silence() {
    std::fflush(nullptr);
    for (int i = 0; i < 2; i++) {
      ::dup2(saved_[i], 1 + i);
      ::close(saved_[i]);
    }
  }

 private:
  int saved_[2];
};

inline void write_bytes(const fs::path& path, const std::string& bytes) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << bytes;
}

inline std::string bytes_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  REQUIRE_MESSAGE(file.good(), path.string());
  return {std::istreambuf_iterator<char>(file), {}};
}

// Class c is a slope whose direction says which class it is, under noise. 12 x 12, grey.
inline std::string tiny_jpeg(int c, int number) {
  std::vector<uint8_t> pixels;
  const RandomStream noise(7, "tiny images");
  for (int y = 0; y < 12; y++)
    for (int x = 0; x < 12; x++) {
      const int slope = c == 0 ? x : c == 1 ? y : 11 - x;
      pixels.push_back(uint8_t(slope * 18 + noise.words(uint32_t(c), uint64_t(number), uint32_t(12 * y + x))[0] % 50));
    }
  const std::vector<uint8_t> bytes = encode_gray_jpeg(pixels.data(), 12, 12, 90);
  return {bytes.begin(), bytes.end()};
}

// train/a, train/b, train/c with 14 images each and val with 5: five steps of 8 an epoch.
inline void write_tiny_images(const fs::path& root) {
  for (const auto& [split, count] : {std::pair{"train", 14}, std::pair{"val", 5}})
    for (int c = 0; c < 3; c++)
      for (int i = 0; i < count; i++)
        write_bytes(root / split / std::string(1, char('a' + c)) / str(i, ".jpg"), tiny_jpeg(c, split[0] == 'v' ? 100 + i : i));
}

// Everything random that a recipe can switch on is on.
inline Recipe tiny_recipe(const fs::path& data, std::vector<std::string> set = {}) {
  std::vector<std::string> all{
      "model.img_size=8", "model.patch_size=2", "model.in_chans=1", "model.num_classes=3", "model.embed_dim=8", "model.depths=[1, 1]",
      "model.num_heads=[1, 2]", "model.window_size=2", "model.mlp_ratio=2", "model.drop_path_rate=0.3",
      "data.path=" + data.string(), "data.batch_size=8",
      "augment.mean=[0.5]", "augment.std=[0.25]", "augment.mix_prob=0.8", "augment.erasing=0.5", "augment.auto_augment=none", "augment.crop_pct=1",
      "optimizer.lr=3e-3", "optimizer.lr_base_batch=0", "schedule.epochs=3", "schedule.min_lr=1e-5", "run.threads=2", "run.seed=5"};
  all.insert(all.end(), set.begin(), set.end());
  return parse_recipe("preset = \"lipsformer_swin_tiny_bounded\"\n", "tiny", all);
}

// One session of a run. `meanwhile` happens after the signals are watched and before the first step.
inline int train(const Recipe& recipe, const fs::path& root, bool resume = false, const std::function<void()>& meanwhile = {}) {
  const Silence silence;
  watch_signals();
  Trainer trainer(recipe, {"lipsgrad", "train"}, resume ? RunFolder::resume(root) : RunFolder::create(root), resume);
  if (meanwhile) meanwhile();
  return trainer.run();
}

// A table without the columns that are measured in seconds.
inline std::string timeless(const fs::path& path) {
  std::ifstream file(path);
  REQUIRE_MESSAGE(file.good(), path.string());
  std::vector<bool> dropped;
  std::string line, cell, kept;
  for (bool header = true; std::getline(file, line); header = false) {
    std::istringstream cells(line);
    for (size_t column = 0; std::getline(cells, cell, ','); column++) {
      if (header) dropped.push_back(cell == "images_per_s" || cell == "data_wait");
      if (column >= dropped.size() || !dropped[column]) kept += cell + ",";
    }
    kept += "\n";
  }
  return kept;
}

// Two runs are the same: every table but for times, and every byte of the last checkpoint.
inline void check_same_run(const fs::path& a, const fs::path& b) {
  for (const char* table : {"steps.csv", "lipschitz.csv", "entropy.csv", "entropy_floor.csv", "norms.csv", "epochs.csv"}) {
    CAPTURE(table);
    const bool same = timeless(a / table) == timeless(b / table);
    CHECK(same);
  }
  const std::vector<int64_t> steps = RunPaths{a}.sealed_checkpoints();
  REQUIRE(!steps.empty());
  REQUIRE(RunPaths{b}.sealed_checkpoints().back() == steps.back());
  for (const char* file : {"model.safetensors", "state.safetensors", "state.json"}) {
    CAPTURE(file);
    const bool same = bytes_of(RunPaths{a}.checkpoint(steps.back()) / file) == bytes_of(RunPaths{b}.checkpoint(steps.back()) / file);
    CHECK(same);
  }
}
