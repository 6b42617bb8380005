// image_index.h: which images there are, found out once by listing folders or walking tar files, and remembered for the next start.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

// Many short strings in one block of memory: a million file names cost little more than their letters.
class Names {
 public:
  Names() = default;
  // The parts of a text by where they end. Exit::bad_data where an end lies outside it.
  Names(std::string text, std::vector<uint64_t> ends);
  void add(std::string_view name) {
    text_ += name;
    ends_.push_back(text_.size());
  }
  std::string_view operator[](size_t i) const {
    const size_t begin = i == 0 ? 0 : ends_[i - 1];
    return std::string_view(text_).substr(begin, ends_[i] - begin);
  }
  size_t size() const { return ends_.size(); }
  const std::string& text() const { return text_; }
  const std::vector<uint64_t>& ends() const { return ends_; }

 private:
  std::string text_;
  std::vector<uint64_t> ends_;
};

// A folder or file as it was when it was read. Another one has another inode, a changed one another time or size; a folder changes
// when a name in it does.
struct Stamp {
  std::string path;
  uint64_t inode = 0;
  int64_t modified_ns = 0, size = 0;
  bool operator==(const Stamp&) const = default;
};
// Exit::no_input when nothing is there.
Stamp stamp_of(const std::string& path);

// Bytes of a tar file: the content of one member.
struct Place {
  int64_t offset = 0;
  uint32_t length = 0;
  int32_t file = 0;
};

struct ImageIndex {
  std::vector<Stamp> sources;   // what was listed or walked, each stamped before it was read
  std::vector<std::string> classes;
  Names names;                  // of the images: paths below the folder, or in their tar file
  std::vector<int32_t> labels;  // as many as names
  std::vector<Place> places;    // as many, or none where each image is a file of its own
};

// Where indexes are kept: $XDG_CACHE_HOME/lipsgrad, or else ~/.cache/lipsgrad; an empty folder keeps none.
struct IndexCache {
  std::string folder;
  size_t least_images = 10000;  // fewer are found again as fast as they are looked up

  static IndexCache standard();
};

// What build() finds, or what it found at an earlier start if none of those sources has changed since. `key` names the question. A cache
// that cannot be read or written, is damaged or of another version costs time and nothing else.
ImageIndex cached_index(const std::string& key, const IndexCache& cache, const std::function<ImageIndex()>& build);
