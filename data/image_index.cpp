// image_index.cpp: the file of a cached index: a head with version and checksum, the stamps, then the arrays as they lie in memory.
#include "data/image_index.h"

#include <sys/stat.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>
#include <span>
#include <system_error>
#include <type_traits>

#include "data/file.h"
#include "engine/durable_file.h"
#include "engine/random.h"

namespace {

constexpr std::string_view version = "lipsgrad image index 1\n";
// A source that changed this short a time before it was read may change once more without getting a later time: the clocks of file
// systems are coarse, to two seconds in the worst of them.
constexpr int64_t settling_ns = 2'000'000'000;
constexpr int64_t largest_file = int64_t(1) << 32;

// Stretches of numbers and letters, one behind the other.
class Writer {
 public:
  template <class T> void array(std::span<const T> values) {
    static_assert(std::is_trivially_copyable_v<T>);
    const uint64_t count = values.size();
    put(&count, sizeof count);
    put(values.data(), values.size_bytes());
  }
  void text(std::string_view s) { array(std::span(s.data(), s.size())); }
  std::string out;

 private:
  void put(const void* data, size_t bytes) { out.append(static_cast<const char*>(data), bytes); }
};

// The same, read back; nothing where the file ends too early.
class Reader {
 public:
  explicit Reader(std::string_view in) : in_(in) {}
  template <class T> bool array(std::vector<T>& out) {
    uint64_t count = 0;
    if (in_.size() < sizeof count) return false;
    std::memcpy(&count, in_.data(), sizeof count);
    in_.remove_prefix(sizeof count);
    if (count > in_.size() / sizeof(T)) return false;
    out.resize(count);
    if (count > 0) std::memcpy(out.data(), in_.data(), count * sizeof(T));   // memcpy takes no null, not even for nothing
    in_.remove_prefix(count * sizeof(T));
    return true;
  }
  bool text(std::string& out) {
    std::vector<char> letters;
    if (!array(letters)) return false;
    out.assign(letters.begin(), letters.end());
    return true;
  }
  bool done() const { return in_.empty(); }

 private:
  std::string_view in_;
};

struct StampNumbers {
  uint64_t inode;
  int64_t modified_ns, size;
};

uint32_t checksum(std::string_view bytes) {
  return uint32_t(crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

std::string encode(const std::string& key, const ImageIndex& index) {
  Writer body;
  body.text(key);
  std::string paths, classes;
  std::vector<StampNumbers> numbers;
  for (const Stamp& stamp : index.sources) {
    paths += stamp.path + '\0';
    numbers.push_back({stamp.inode, stamp.modified_ns, stamp.size});
  }
  for (const std::string& name : index.classes) classes += name + '\0';
  body.text(paths);
  body.array<StampNumbers>(numbers);
  body.text(classes);
  body.text(index.names.text());
  body.array<uint64_t>(index.names.ends());
  body.array<int32_t>(index.labels);
  body.array<Place>(index.places);
  const uint32_t sum = checksum(body.out);
  std::string file(version);
  file.append(reinterpret_cast<const char*>(&sum), sizeof sum);
  return file + body.out;
}

std::vector<std::string> cut_at_zeros(const std::string& text) {
  std::vector<std::string> parts;
  for (size_t at = 0; at < text.size(); at += parts.back().size() + 1) parts.push_back(text.c_str() + at);
  return parts;
}

bool fits(const ImageIndex& index, size_t stamps) {
  const size_t images = index.names.size();
  const auto known = [&](int32_t label) { return label >= 0 && size_t(label) < index.classes.size(); };
  return index.sources.size() == stamps && index.labels.size() == images && (index.places.empty() || index.places.size() == images) &&
         std::all_of(index.labels.begin(), index.labels.end(), known);
}

std::optional<ImageIndex> decode(std::string_view file, const std::string& key) {
  uint32_t sum = 0;
  if (!file.starts_with(version) || file.size() < version.size() + sizeof sum) return {};
  std::memcpy(&sum, file.data() + version.size(), sizeof sum);
  file.remove_prefix(version.size() + sizeof sum);
  if (checksum(file) != sum) return {};

  Reader in(file);
  ImageIndex index;
  std::string said_key, paths, classes, names;
  std::vector<StampNumbers> numbers;
  std::vector<uint64_t> ends;
  const bool whole = in.text(said_key) && in.text(paths) && in.array(numbers) && in.text(classes) && in.text(names) && in.array(ends) &&
                     in.array(index.labels) && in.array(index.places) && in.done();
  if (!whole || said_key != key) return {};
  for (const std::string& path : cut_at_zeros(paths)) {
    if (index.sources.size() == numbers.size()) return {};
    const StampNumbers& n = numbers[index.sources.size()];
    index.sources.push_back({path, n.inode, n.modified_ns, n.size});
  }
  index.classes = cut_at_zeros(classes);
  index.names = Names(std::move(names), std::move(ends));
  if (!fits(index, numbers.size())) return {};
  return index;
}

bool is_unchanged(const Stamp& stamp) {
  try {
    return stamp_of(stamp.path) == stamp;
  } catch (const Error&) {
    return false;
  }
}

std::string file_of(const std::string& key, const IndexCache& cache) {
  char name[40];
  std::snprintf(name, sizeof name, "/images-%016llx.index", static_cast<unsigned long long>(hash_name(key)));
  return cache.folder + name;
}

std::optional<ImageIndex> load(const std::string& key, const IndexCache& cache) {
  std::optional<ImageIndex> index;
  try {
    Bytes bytes;
    read_file(file_of(key, cache), bytes, largest_file);
    index = decode({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, key);
  } catch (const Error&) {
    return {};
  }
  if (!index || !std::all_of(index->sources.begin(), index->sources.end(), is_unchanged)) return {};
  return index;
}

void save(const std::string& key, const IndexCache& cache, const ImageIndex& index) {
  try {
    make_folders(cache.folder);
    write_file_atomically(file_of(key, cache), encode(key, index));
  } catch (const Error&) {   // no permission, disk full: the next start looks again
  }
}

int64_t now_ns() {
  const auto since_1970 = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(since_1970).count();
}

}  // namespace

Names::Names(std::string text, std::vector<uint64_t> ends) : text_(std::move(text)), ends_(std::move(ends)) {
  const bool fit = std::is_sorted(ends_.begin(), ends_.end()) && (ends_.empty() ? 0 : ends_.back()) == text_.size();
  if (!fit) fail(Exit::bad_data, "the names of an index do not fit their text");
}

Stamp stamp_of(const std::string& path) {
  struct stat status;
  if (stat(path.c_str(), &status) != 0) fail(Exit::no_input, path, ": cannot be read: ", std::generic_category().message(errno));
  const int64_t modified = int64_t(status.st_mtim.tv_sec) * 1'000'000'000 + status.st_mtim.tv_nsec;
  return {path, uint64_t(status.st_ino), modified, int64_t(status.st_size)};
}

IndexCache IndexCache::standard() {
  IndexCache cache;
  const char* base = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  if (base && *base) cache.folder = std::string(base) + "/lipsgrad";
  else if (home && *home) cache.folder = std::string(home) + "/.cache/lipsgrad";
  return cache;
}

ImageIndex cached_index(const std::string& key, const IndexCache& cache, const std::function<ImageIndex()>& build) {
  if (cache.folder.empty()) return build();
  if (auto index = load(key, cache)) return std::move(*index);
  const int64_t began = now_ns();
  ImageIndex index = build();
  const auto settled = [&](const Stamp& source) { return source.modified_ns < began - settling_ns; };
  const bool worth_it = index.names.size() >= cache.least_images;
  if (worth_it && std::all_of(index.sources.begin(), index.sources.end(), settled)) save(key, cache, index);
  return index;
}
