// dataset.cpp: finds out what lies at a path.
#include "data/dataset.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <functional>

#include "data/sources.h"

namespace fs = std::filesystem;

namespace {

// What a split may be called, the asked name first.
std::vector<std::string> names_of_split(const std::string& split) {
  if (split == "val") return {"val", "validation", "test", "t10k"};
  if (split == "test") return {"test", "t10k", "val", "validation"};
  return {split};
}

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

bool is_folder(const fs::path& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

// "a-{000..012}.tar" -> a-000.tar ... a-012.tar; a path without braces is itself.
std::vector<std::string> expand_range(const std::string& pattern) {
  const size_t open = pattern.find('{'), dots = pattern.find("..", open), close = pattern.find('}', open);
  if (open == std::string::npos) return {pattern};
  const auto is_number = [](const std::string& s) {
    return !s.empty() && s.size() <= 9 && s.find_first_not_of("0123456789") == std::string::npos;
  };
  std::string first, last;
  if (dots != std::string::npos && close != std::string::npos && dots < close) {
    first = pattern.substr(open + 1, dots - open - 1);
    last = pattern.substr(dots + 2, close - dots - 2);
  }
  if (!is_number(first) || !is_number(last) || std::stol(first) > std::stol(last) ||
      std::stol(last) - std::stol(first) > 1000000) {
    fail(Exit::config, pattern, ": braces must hold {split} or a range such as {000000..000146}");
  }
  std::vector<std::string> paths;
  for (long i = std::stol(first); i <= std::stol(last); i++) {
    char number[32];
    std::snprintf(number, sizeof number, "%0*ld", int(first.size()), i);
    paths.push_back(pattern.substr(0, open) + number + pattern.substr(close + 1));
  }
  return paths;
}

std::unique_ptr<Dataset> open_tars(const std::vector<std::string>& tars, std::vector<DamagedImage>* damaged) {
  if (tars.size() == 1 && fs::path(tars.front()).filename() == "ILSVRC2012_img_val.tar") return open_ilsvrc_val(tars.front());
  if (tars.size() == 1 && is_tar_of_tars(tars.front())) return open_class_tars(tars.front());
  return open_tar_shards(tars, damaged);
}

std::unique_ptr<Dataset> open_pattern(const std::string& path, const std::string& split, std::vector<DamagedImage>* damaged) {
  const std::string mark = "{split}";
  const size_t at = path.find(mark);
  if (at == std::string::npos) {
    if (!split.empty())
      fail(Exit::config, path, ": a path to tar files must say {split} where the ", split, " split differs");
    return open_tars(expand_range(path), damaged);
  }
  for (const std::string& name : names_of_split(split)) {
    std::string one = path;
    const std::vector<std::string> shards = expand_range(one.replace(at, mark.size(), name));
    if (is_there(shards.front())) return open_tars(shards, damaged);
  }
  fail(Exit::no_input, path, ": there are no tar files of the ", split, " split");
}

std::unique_ptr<Dataset> open_folder(const std::string& folder, std::vector<DamagedImage>* damaged) {
  std::vector<std::string> shards;
  for (const std::string& name : list_folder(folder)) {
    if (fs::path(name).extension() == ".tar") shards.push_back((fs::path(folder) / name).string());
  }
  return shards.empty() ? open_image_folder(folder) : open_tars(shards, damaged);
}

// What a folder may hold of a split of this name, besides a folder of that name; each a way to open it. Nothing when nothing is there.
using Opening = std::function<std::unique_ptr<Dataset>()>;

Opening find_files(const fs::path& folder, const std::string& name) {
  const auto at = [&](const std::string& file) { return (folder / file).string(); };
  for (const std::string suffix : {"", ".gz"}) {
    const std::string images = at(name + "-images-idx3-ubyte" + suffix), labels = at(name + "-labels-idx1-ubyte" + suffix);
    if (is_there(images)) return [=] { return open_idx(images, labels); };
  }
  const std::string archive = at("ILSVRC2012_img_" + name + ".tar");
  if (name == "train" && is_there(archive)) return [=] { return open_class_tars(archive); };
  if (name == "val" && is_there(archive)) return [=] { return open_ilsvrc_val(archive); };

  std::vector<std::string> batches = {at("test_batch.bin")};
  if (name == "train") batches = {at("data_batch_1.bin"), at("data_batch_2.bin"), at("data_batch_3.bin"), at("data_batch_4.bin"), at("data_batch_5.bin")};
  const bool named = name == "train" || name == "test";
  const std::string ten = at("batches.meta.txt"), hundred = at("fine_label_names.txt"), all = at(name + ".bin");
  if (named && is_there(batches.front())) return [=] { return open_cifar(batches, 1, ten); };
  if (named && is_there(all)) return [=] { return open_cifar({all}, 2, hundred); };
  return {};
}

Opening find_split(const fs::path& path, const std::string& name, std::vector<DamagedImage>* damaged) {
  const std::string folder = (path / name).string();
  if (is_folder(folder)) return [=] { return open_folder(folder, damaged); };
  return find_files(path, name);
}

class ImageFiles : public Dataset {
 public:
  explicit ImageFiles(const std::vector<std::string>& paths) : paths_(paths) {}
  int64_t size() const override { return int64_t(paths_.size()); }
  const std::vector<std::string>& classes() const override { return classes_; }
  int label(int64_t) const override { return 0; }
  std::string name(int64_t i) const override { return paths_[i]; }
  void read(int64_t i, Bytes& out) const override { read_file(paths_[i], out, max_image_bytes); }

 private:
  std::vector<std::string> paths_, classes_ = {"0"};
};

}  // namespace

std::vector<std::string> read_lines(const std::string& path) {
  Bytes text;
  read_file(path, text, 1 << 24);
  std::vector<std::string> lines(1);
  for (const uint8_t c : text) {
    if (c == '\n') lines.emplace_back();
    else if (c != '\r') lines.back() += char(c);
  }
  if (lines.back().empty()) lines.pop_back();
  return lines;
}

std::optional<std::vector<std::string>> read_class_names(const std::string& folder) {
  const fs::path here(folder);
  fs::path file = here / "classes.txt";
  if (!is_there(file)) file = here.parent_path() / "classes.txt";
  if (!is_there(file)) return {};
  return read_lines(file.string());
}

std::vector<std::string> name_classes(std::optional<std::vector<std::string>> found, int count,
                                      const std::string& where) {
  if (!found) {
    found.emplace();
    for (int i = 0; i < count; i++) found->push_back(std::to_string(i));
  }
  if (int(found->size()) < count) {
    fail(Exit::bad_data, where, ": classes.txt names ", found->size(), " classes, but there is a label ", count - 1);
  }
  return *found;
}

std::unique_ptr<Dataset> open_dataset(const std::string& path, const std::string& split, std::vector<DamagedImage>* damaged) {
  const bool is_pattern = path.find('{') != std::string::npos || fs::path(path).extension() == ".tar";
  if (is_pattern && !is_folder(path)) return open_pattern(path, split, damaged);
  if (!is_folder(path)) fail(Exit::no_input, path, ": there is no such data folder");
  if (split.empty()) return open_folder(path, damaged);

  for (const std::string& name : names_of_split(split))
    if (const Opening open = find_split(path, name, damaged)) return open();
  fail(Exit::no_input, path, ": there is no ", split, " split: neither a folder ", split, "/ nor files of a known kind (docs/recipes.md lists them)");
}

bool has_split(const std::string& path, const std::string& name) { return bool(find_split(path, name, nullptr)); }

std::unique_ptr<Dataset> open_images(const std::vector<std::string>& paths) {
  return std::make_unique<ImageFiles>(paths);
}
