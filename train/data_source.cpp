// data_source.cpp: known names, splits, paths.
#include "train/data_source.h"

std::string source_path(const std::string& source) { return source == "fashion-mnist" ? "/usr/share/datasets/fashion-mnist" : source; }

std::vector<std::string> splits_of(const std::string& path) {
  if (path.find("{split}") != std::string::npos) return {"train", "val"};
  std::vector<std::string> splits;
  if (has_split(path, "train")) splits.push_back("train");
  const bool val = has_split(path, "val") || has_split(path, "validation"), test = has_split(path, "test") || has_split(path, "t10k");
  if (val || test) splits.push_back("val");   // for which a test split stands in
  if (val && test) splits.push_back("test");
  if (splits.empty()) splits.push_back("");
  return splits;
}

std::unique_ptr<Dataset> open_source(const std::string& source) {
  const std::string path = source_path(source);
  return open_dataset(path, splits_of(path).front());
}
