// partial_folder.cpp: renaming is what makes a file or a folder complete.
#include "data/partial_folder.h"

#include <system_error>

#include "data/file.h"
#include "engine/durable_file.h"

namespace fs = std::filesystem;

namespace {

constexpr const char* recipe_file = "pack.json";

void rename_or_fail(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::rename(from, to, error);
  if (error) fail(Exit::cannot_create, to.string(), ": cannot be created: ", error.message());
}

fs::path without_last_slash(const std::string& folder) {
  const fs::path path = fs::path(folder).lexically_normal();
  return path.has_filename() ? path : path.parent_path();
}

}  // namespace

PartialFolder::PartialFolder(const std::string& target, const std::string& recipe)
    : target_(without_last_slash(target)), path_(target_.string() + ".part") {
  std::error_code error;
  if (fs::exists(target_, error) && !(fs::is_directory(target_, error) && fs::is_empty(target_, error))) {
    fail(Exit::cannot_create, target_.string(), ": is there already and is not an empty folder; remove it or choose another");
  }
  fs::create_directories(path_, error);
  const bool full = error == std::errc::no_space_on_device;
  if (error) fail(full ? Exit::io : Exit::cannot_create, path_.string(), ": cannot be created: ", error.message());

  const std::string recipe_path = path_of(recipe_file);
  const bool continues = fs::is_regular_file(recipe_path, error) && read_file(recipe_path) == recipe;
  if (continues) {
    for (const std::string& name : list_folder(path_.string()))
      if (fs::path(name).extension() == ".tar") finished_.insert(name);
    return;
  }
  remove_files();
  fs::create_directories(path_, error);
  write_file_atomically(recipe_path, recipe);
}

PartialFolder::~PartialFolder() {
  if (!kept_ && finished_.empty()) remove_files();
}

void PartialFolder::finish(const std::string& name) {
  rename_or_fail(path_while_writing(name), path_of(name));
  sync_path(path_.string());
  finished_.insert(name);
}

void PartialFolder::keep() {
  sync_path(path_.string());
  rename_or_fail(path_, target_);
  kept_ = true;
  sync_path(fs::absolute(target_).parent_path().string());
}

// Only what pack() writes: a folder of somebody else that happens to have this name keeps its files.
void PartialFolder::remove_files() {
  std::error_code ignored;
  for (fs::directory_iterator entry(path_, ignored), end; entry != end; entry.increment(ignored)) {
    const std::string name = entry->path().filename().string();
    if (name.ends_with(".tar") || name.ends_with(".tar.part") || name.starts_with("classes.txt") || name == recipe_file)
      fs::remove(entry->path(), ignored);
  }
  fs::remove(path_, ignored);
}
