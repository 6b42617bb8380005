// image_folder.cpp: FOLDER/<class>/**/*.jpg, the layout of ImageNet and torchvision. One task a class lists the folders, so that a slow
// disk answers many at once; entries say what they are without a look at each file.
#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <memory>
#include <set>
#include <system_error>

#include "data/sources.h"
#include "engine/workers.h"

namespace fs = std::filesystem;

namespace {

constexpr int listing_threads = 8;   // they wait for the disk, not for a core

struct Listing {
  std::vector<std::string> files, folders;   // sorted by bytes
};

// Links count as what they lead to; one that leads nowhere is a file, and the loader will name it.
bool is_folder(DIR* parent, const dirent& entry) {
  if (entry.d_type != DT_UNKNOWN && entry.d_type != DT_LNK) return entry.d_type == DT_DIR;
  struct stat status;
  return fstatat(dirfd(parent), entry.d_name, &status, 0) == 0 && S_ISDIR(status.st_mode);
}

Listing list(const std::string& path) {
  const auto refuse = [&] { fail(Exit::no_input, path, ": cannot be read as a folder: ", std::generic_category().message(errno)); };
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(opendir(path.c_str()), closedir);
  if (!folder) refuse();
  Listing out;
  errno = 0;
  while (const dirent* entry = readdir(folder.get())) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") (is_folder(folder.get(), *entry) ? out.folders : out.files).push_back(name);
    errno = 0;
  }
  if (errno != 0) refuse();
  std::sort(out.files.begin(), out.files.end());
  std::sort(out.folders.begin(), out.folders.end());
  return out;
}

struct ClassFiles {
  Names names;   // below the root
  std::vector<Stamp> folders;
};

// torchvision's order: the folders of a class sorted by path, in each the files sorted by name. Links are followed, but not in a circle.
void add_folder(const std::string& root, const std::string& folder, std::set<fs::path>& open_folders, ClassFiles& out) {
  const std::string full = root + "/" + folder;
  std::error_code error;
  const auto [self, is_new] = open_folders.insert(fs::canonical(full, error));
  if (error) fail(Exit::no_input, full, ": cannot be read as a folder: ", error.message());
  if (!is_new) return;
  out.folders.push_back(stamp_of(full));
  const Listing here = list(full);
  for (const std::string& name : here.files)
    if (is_image_name(name)) out.names.add(folder + "/" + name);
  for (const std::string& name : here.folders) add_folder(root, folder + "/" + name, open_folders, out);
  open_folders.erase(self);
}

ImageIndex list_classes(const std::string& root) {
  ImageIndex index;
  index.sources.push_back(stamp_of(root));
  index.classes = list(root).folders;
  if (index.classes.empty()) fail(Exit::bad_data, root, ": there is neither a folder for each class nor a tar file in it");
  std::vector<ClassFiles> found(index.classes.size());
  Workers(int(std::min<size_t>(listing_threads, found.size()))).run(int64_t(found.size()), [&](int64_t i) {
    std::set<fs::path> open_folders;
    add_folder(root, index.classes[size_t(i)], open_folders, found[size_t(i)]);
    if (found[size_t(i)].names.size() == 0)
      fail(Exit::bad_data, root, ": the class ", index.classes[size_t(i)], " is empty: no .jpg, .jpeg or .png in its folder");
  });
  for (size_t label = 0; label < found.size(); label++) {
    const Names& names = found[label].names;
    for (size_t i = 0; i < names.size(); i++) index.names.add(names[i]);
    index.labels.resize(index.names.size(), int32_t(label));
    index.sources.insert(index.sources.end(), found[label].folders.begin(), found[label].folders.end());
    found[label] = {};
  }
  return index;
}

class ImageFolder : public Dataset {
 public:
  ImageFolder(const std::string& root, ImageIndex index) : root_(root), index_(std::move(index)) {}
  int64_t size() const override { return int64_t(index_.labels.size()); }
  const std::vector<std::string>& classes() const override { return index_.classes; }
  int label(int64_t i) const override { return index_.labels[size_t(i)]; }
  std::string name(int64_t i) const override { return str(root_, "/", index_.names[size_t(i)]); }
  void read(int64_t i, Bytes& out) const override { read_file(name(i), out, max_image_bytes); }

 private:
  std::string root_;
  ImageIndex index_;
};

}  // namespace

bool is_image_name(const std::string& name) {
  std::string extension = fs::path(name).extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(), [](unsigned char c) { return std::tolower(c); });
  return extension == ".jpg" || extension == ".jpeg" || extension == ".png";
}

std::unique_ptr<Dataset> open_image_folder(const std::string& folder, const IndexCache& cache) {
  const std::string root = fs::canonical(folder).string();
  return std::make_unique<ImageFolder>(root, cached_index("folder\n" + root, cache, [&] { return list_classes(root); }));
}
