// sources.h: the kinds of datasets that open_dataset chooses from.
#pragma once
#include <optional>

#include "data/dataset.h"

std::unique_ptr<Dataset> open_image_folder(const std::string& folder);
std::unique_ptr<Dataset> open_tar_shards(const std::vector<std::string>& shards, std::vector<DamagedImage>* damaged);
std::unique_ptr<Dataset> open_idx(const std::string& images, const std::string& labels);

// The lines of folder/classes.txt, or of the folder above; nothing when neither has the file.
std::optional<std::vector<std::string>> read_class_names(const std::string& folder);
// Class names for `count` labels: those that were found, which must be enough, or "0", "1", ...
std::vector<std::string> name_classes(std::optional<std::vector<std::string>> found, int count,
                                      const std::string& where);

// Many short strings in one block of memory: a million file names cost little more than their letters.
class Names {
 public:
  void add(std::string_view name) {
    text_ += name;
    ends_.push_back(text_.size());
  }
  std::string_view operator[](size_t i) const {
    const size_t begin = i == 0 ? 0 : ends_[i - 1];
    return std::string_view(text_).substr(begin, ends_[i] - begin);
  }
  size_t size() const { return ends_.size(); }

 private:
  std::string text_;
  std::vector<size_t> ends_;
};
