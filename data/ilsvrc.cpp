// ilsvrc.cpp: the archives of ImageNet as they are distributed, read in place.
#include <algorithm>
#include <filesystem>

#include "data/devkit.h"
#include "data/sources.h"
#include "data/tar.h"
#include "engine/workers.h"

namespace fs = std::filesystem;

namespace {

constexpr int walking_threads = 8;   // they wait for the disk, not for a core

std::string absolute(const std::string& path) { return fs::absolute(path).lexically_normal().string(); }

std::vector<TarMember> members_of(TarReader reader) {
  std::vector<TarMember> members;
  while (auto member = reader.next()) members.push_back(std::move(*member));
  return members;
}

// The images, sorted by name.
std::vector<TarMember> images_of(TarReader reader, const std::string& where) {
  std::vector<TarMember> images = members_of(std::move(reader));
  std::erase_if(images, [](const TarMember& m) { return !is_image_name(m.name); });
  std::sort(images.begin(), images.end(), [](const TarMember& a, const TarMember& b) { return a.name < b.name; });
  for (size_t i = 0; i < images.size(); i++) {
    if (images[i].size > max_image_bytes) fail(Exit::bad_data, where, ": ", images[i].name, " is larger than any image");
    if (i > 0 && images[i].name == images[i - 1].name) fail(Exit::bad_data, where, ": ", images[i].name, " comes twice");
  }
  return images;
}

void add_image(ImageIndex& index, const std::string& name, int label, const TarMember& image) {
  index.names.add(name);
  index.labels.push_back(label);
  index.places.push_back({image.offset, uint32_t(image.size), 0});
}

ImageIndex walk_class_tars(const std::string& path) {
  ImageIndex index;
  index.sources.push_back(stamp_of(path));
  const InputFile file(path);
  std::vector<TarMember> tars = members_of(TarReader(file));
  std::sort(tars.begin(), tars.end(), [](const TarMember& a, const TarMember& b) { return a.name < b.name; });
  for (const TarMember& tar : tars) {
    if (!tar.name.ends_with(".tar")) fail(Exit::bad_data, path, ": ", tar.name, " is no tar file, among tar files of classes");
    index.classes.push_back(tar.name.substr(0, tar.name.size() - 4));
    const bool again = index.classes.size() > 1 && index.classes.back() == index.classes[index.classes.size() - 2];
    if (again) fail(Exit::bad_data, path, ": ", tar.name, " comes twice");
  }
  std::vector<std::vector<TarMember>> images(tars.size());
  Workers(int(std::min<size_t>(walking_threads, tars.size()))).run(int64_t(tars.size()), [&](int64_t c) {
    const TarMember& tar = tars[size_t(c)];
    images[size_t(c)] = images_of(TarReader(file, tar.offset, tar.offset + tar.size), path + "/" + tar.name);
    if (images[size_t(c)].empty()) fail(Exit::bad_data, path, ": the class ", index.classes[size_t(c)], " is empty: no .jpg, .jpeg or .png in its tar");
  });
  for (size_t c = 0; c < images.size(); c++)
    for (const TarMember& image : images[c]) add_image(index, tars[c].name + "/" + image.name, int(c), image);
  return index;
}

// "ILSVRC2012_val_00000001.JPEG" -> 1
int number_of_image(const std::string& name) {
  const size_t under = name.rfind('_'), dot = name.rfind('.');
  return under == std::string::npos || dot == std::string::npos || dot < under ? -1 : number_in(name.substr(under + 1, dot - under - 1));
}

ImageIndex walk_val(const std::string& path, const DevkitFiles& devkit) {
  ImageIndex index;
  for (const std::string& source : {path, devkit.truth, devkit.synsets}) index.sources.push_back(stamp_of(source));
  const auto& [truth, synsets] = read_devkit(devkit);
  for (const auto& [id, synset] : synsets) index.classes.push_back(synset);
  std::sort(index.classes.begin(), index.classes.end());
  const auto again = std::adjacent_find(index.classes.begin(), index.classes.end());
  if (again != index.classes.end()) fail(Exit::bad_data, devkit.synsets, ": the synset ", *again, " comes twice");

  const InputFile file(path);
  for (const TarMember& image : images_of(TarReader(file), path)) {
    const int number = number_of_image(image.name);
    if (number < 1 || number > int(truth.size())) fail(Exit::bad_data, path, ": ", image.name, " has no line in ", devkit.truth, ", which has ", truth.size());
    const auto synset = synsets.find(number_in(truth[size_t(number) - 1]));
    if (synset == synsets.end())
      fail(Exit::bad_data, devkit.truth, ": line ", number, " must be an ID that ", devkit.synsets, " names, not '", truth[size_t(number) - 1], "'");
    const auto place = std::lower_bound(index.classes.begin(), index.classes.end(), synset->second);
    add_image(index, image.name, int(place - index.classes.begin()), image);
  }
  if (index.labels.size() != truth.size())
    fail(Exit::bad_data, path, ": has ", index.labels.size(), " images, but ", devkit.truth, " has ", truth.size(), " lines");
  return index;
}

}  // namespace

bool is_tar_of_tars(const std::string& tar) {
  const InputFile file(tar);
  const auto first = TarReader(file).next();
  return first && first->name.ends_with(".tar");
}

std::unique_ptr<Dataset> open_class_tars(const std::string& tar, const IndexCache& cache) {
  const std::string path = absolute(tar);
  return open_tar_images({path}, cached_index("class tars\n" + path, cache, [&] { return walk_class_tars(path); }));
}

std::unique_ptr<Dataset> open_ilsvrc_val(const std::string& tar, const IndexCache& cache) {
  const std::string path = absolute(tar);
  const DevkitFiles devkit = find_devkit(path);
  const std::string key = "ilsvrc val\n" + path + "\n" + devkit.truth + "\n" + devkit.synsets;
  return open_tar_images({path}, cached_index(key, cache, [&] { return walk_val(path, devkit); }));
}
