// devkit.cpp: two files of it, read one by one or out of the archive.
#include "data/devkit.h"

#include <sys/mman.h>
#include <unistd.h>

#include <filesystem>
#include <optional>
#include <sstream>

#include "data/meta_mat.h"
#include "data/sources.h"
#include "data/tar.h"
#include "engine/durable_file.h"

namespace fs = std::filesystem;

namespace {

constexpr int low_level_synsets = 1000;   // larger IDs are inner nodes of the hierarchy
const std::string archive_name = "ILSVRC2012_devkit_t12.tar.gz", inside = "ILSVRC2012_devkit_t12/data/";
const std::string truth_name = "ILSVRC2012_validation_ground_truth.txt", synsets_name = "ILSVRC2012_synsets.txt", meta_name = "meta.mat";

std::optional<std::string> find_beside(const std::string& tar, const std::string& name) {
  const fs::path folder = fs::path(tar).parent_path();
  std::error_code ignored;
  for (const fs::path& place : {folder / name, folder / inside / name})
    if (fs::is_regular_file(place, ignored)) return place.string();
  return {};
}

// "ID SYNSET ..." or "SYNSET ID ...": the synset of each ID that a picture can have.
std::map<int, std::string> read_synsets(const std::string& path) {
  std::map<int, std::string> synsets;
  for (const std::string& line : read_lines(path)) {
    std::istringstream words(line);
    std::string first, second;
    if (!(words >> first)) continue;
    words >> second;
    if (number_in(first) < 0) std::swap(first, second);
    const int id = number_in(first);
    if (id < 1 || second.empty()) fail(Exit::bad_data, path, ": a line must say an ILSVRC2012_ID and its synset, not '", line, "'");
    if (id <= low_level_synsets && !synsets.emplace(id, second).second) fail(Exit::bad_data, path, ": the ID ", id, " comes twice");
  }
  if (synsets.empty()) fail(Exit::bad_data, path, ": names no synset");
  return synsets;
}

// A file without a name, which is gone when it is closed.
struct MemoryFile {
  const int descriptor = memfd_create("devkit", MFD_CLOEXEC);
  explicit MemoryFile(const Bytes& bytes) {
    if (descriptor < 0) fail(Exit::internal, "no memory for the devkit");
    write_all(descriptor, {reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path());
  }
  ~MemoryFile() { close(descriptor); }
  std::string path() const { return str("/proc/self/fd/", descriptor); }
};

DevkitLabels read_archive(const std::string& path) {
  Bytes packed;
  read_file(path, packed, int64_t(max_devkit_bytes));
  const MemoryFile tar(inflated(packed, true, max_devkit_bytes, path));
  std::map<std::string, Bytes> found;
  try {
    const InputFile file(tar.path());
    TarReader reader(file);
    while (const auto member = reader.next()) {
      if (member->name != inside + truth_name && member->name != inside + meta_name) continue;
      Bytes& bytes = found[member->name.substr(inside.size())];
      if (!bytes.empty()) fail(Exit::bad_data, tar.path(), ": ", member->name, " comes twice");
      bytes.resize(size_t(member->size));
      file.read_at(member->offset, bytes.data(), bytes.size());
    }
  } catch (const Error& error) {
    fail(error.exit, path, std::string(error.what()).substr(tar.path().size()));
  }
  for (const std::string& name : {truth_name, meta_name})
    if (found[name].empty()) fail(Exit::bad_data, path, ": holds no ", inside, name);
  DevkitLabels labels;
  std::istringstream truth({found[truth_name].begin(), found[truth_name].end()});
  for (std::string line; std::getline(truth, line);) {
    if (line.ends_with('\r')) line.pop_back();
    labels.truth.push_back(line);
  }
  labels.synsets = read_meta_mat(found[meta_name], path + "/" + meta_name);
  return labels;
}

}  // namespace

int number_in(const std::string& word) {
  const bool plain = !word.empty() && word.size() <= 8 && word.find_first_not_of("0123456789") == std::string::npos;
  return plain ? std::stoi(word) : -1;
}

DevkitFiles find_devkit(const std::string& tar) {
  const auto truth = find_beside(tar, truth_name);
  auto synsets = find_beside(tar, synsets_name);
  if (!synsets) synsets = find_beside(tar, meta_name);
  if (truth && synsets) return {*truth, *synsets};
  const auto archive = find_beside(tar, archive_name);
  if (archive) return {*archive, *archive};
  fail(Exit::no_input, tar, " has no labels in it: put ", archive_name, " beside it, or ", truth_name, " and ", synsets_name,
       " (lines \"ILSVRC2012_ID SYNSET\")");
}

DevkitLabels read_devkit(const DevkitFiles& files) {
  if (files.truth == files.synsets) return read_archive(files.truth);
  if (!files.synsets.ends_with(".mat")) return {read_lines(files.truth), read_synsets(files.synsets)};
  Bytes meta;
  read_file(files.synsets, meta, int64_t(max_devkit_bytes));
  return {read_lines(files.truth), read_meta_mat(meta, files.synsets)};
}
