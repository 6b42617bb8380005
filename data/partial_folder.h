// partial_folder.h: a folder that is built beside its place, under NAME.part, and appears there when it is complete.
#pragma once
#include <filesystem>
#include <set>
#include <string>

class PartialFolder {
 public:
  // `recipe` says what the content is made of. Files that an interrupted run made of the same are kept, all others removed.
  // Exit::cannot_create when something stands in the way.
  PartialFolder(const std::string& target, const std::string& recipe);
  // Leaves finished files to the next run; a folder without any disappears.
  ~PartialFolder();
  PartialFolder(const PartialFolder&) = delete;

  // Files have a short life under NAME.part too, until finish() says that they are on the disk.
  std::string path_while_writing(const std::string& name) const { return (path_ / name).string() + ".part"; }
  void finish(const std::string& name);
  bool is_finished(const std::string& name) const { return finished_.count(name) > 0; }
  std::string path_of(const std::string& name) const { return (path_ / name).string(); }

  void keep();

 private:
  void remove_files();

  std::filesystem::path target_, path_;
  std::set<std::string> finished_;
  bool kept_ = false;
};
