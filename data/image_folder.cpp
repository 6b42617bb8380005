// image_folder.cpp: FOLDER/<class>/**/*.jpg, the layout of ImageNet and torchvision.
#include <algorithm>
#include <cctype>
#include <filesystem>
#include <set>

#include "data/sources.h"

namespace fs = std::filesystem;

namespace {

bool is_image_name(const std::string& name) {
  std::string extension = fs::path(name).extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  return extension == ".jpg" || extension == ".jpeg" || extension == ".png";
}

class ImageFolder : public Dataset {
 public:
  explicit ImageFolder(const std::string& root) : root_(root) {
    for (const std::string& name : list_folder(root)) {
      if (fs::is_directory(fs::path(root) / name)) classes_.push_back(name);
    }
    if (classes_.empty())
      fail(Exit::bad_data, root, ": there is neither a folder for each class nor a tar file in it");
    for (size_t label = 0; label < classes_.size(); label++) {
      std::set<fs::path> open_folders;
      const size_t before = files_.size();
      add_folder(classes_[label], open_folders);
      if (files_.size() == before) {
        fail(Exit::bad_data, root, ": the class ", classes_[label], " is empty: no .jpg, .jpeg or .png in its folder");
      }
      labels_.resize(files_.size(), int(label));
    }
  }

  int64_t size() const override { return int64_t(labels_.size()); }
  const std::vector<std::string>& classes() const override { return classes_; }
  int label(int64_t i) const override { return labels_[i]; }
  std::string name(int64_t i) const override { return (fs::path(root_) / files_[i]).string(); }
  void read(int64_t i, Bytes& out) const override { read_file(name(i), out, max_image_bytes); }

 private:
  // torchvision's order: the folders of a class sorted by path, in each the files sorted by name. Links are followed,
  // but not in a circle.
  void add_folder(const std::string& folder, std::set<fs::path>& open_folders) {
    const fs::path full = fs::path(root_) / folder;
    const auto [self, is_new] = open_folders.insert(fs::canonical(full));
    if (!is_new) return;
    std::vector<std::string> inner;
    for (const std::string& name : list_folder(full.string())) {
      if (is_image_name(name) && !fs::is_directory(full / name)) files_.add(folder + "/" + name);
      else if (fs::is_directory(full / name)) inner.push_back(name);
    }
    for (const std::string& name : inner) add_folder(folder + "/" + name, open_folders);
    open_folders.erase(self);
  }

  std::string root_;
  std::vector<std::string> classes_;
  Names files_;  // relative to the root
  std::vector<int> labels_;
};

}  // namespace

std::unique_ptr<Dataset> open_image_folder(const std::string& folder) { return std::make_unique<ImageFolder>(folder); }
