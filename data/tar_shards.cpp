// tar_shards.cpp: WebDataset shards. One scan builds an index; after that any sample is one read away.
#include <algorithm>
#include <filesystem>

#include "data/sources.h"
#include "data/tar.h"

namespace fs = std::filesystem;

namespace {

constexpr int max_label = 1'000'000;

// KEY.EXTENSION: the key ends at the first dot of the last component; the extension is lower-cased.
struct MemberName {
  std::string key, extension;
  explicit MemberName(const std::string& name) {
    const size_t slash = name.rfind('/');
    const size_t dot = name.find('.', slash == std::string::npos ? 0 : slash + 1);
    if (dot == std::string::npos) return;
    key = name.substr(0, dot);
    extension = name.substr(dot + 1);
    std::transform(extension.begin(), extension.end(), extension.begin(),
                   [](unsigned char c) { return std::tolower(c); });
  }
};

struct Place {
  int64_t offset;
  uint32_t length;
  int shard, label;
};

class TarShards : public Dataset {
 public:
  TarShards(const std::vector<std::string>& shards, std::vector<DamagedImage>* damaged) {
    for (const std::string& path : shards) shards_.emplace_back(path);
    for (size_t i = 0; i < shards_.size(); i++) {
      try {
        index(int(i));
      } catch (const Error& error) {
        if (!damaged || error.exit != Exit::bad_data) throw;
        damaged->push_back({size(), shards[i], error.what()});
      }
    }
    const bool explained = damaged && !damaged->empty();
    if (places_.empty() && !explained) fail(Exit::bad_data, shards.front(), ": there are no samples (KEY.jpg beside KEY.cls) in it");
    int classes = 0;
    for (const Place& place : places_) classes = std::max(classes, place.label + 1);
    const std::string folder = fs::absolute(shards.front()).parent_path().string();
    classes_ = name_classes(read_class_names(folder), classes, folder);
  }

  int64_t size() const override { return int64_t(places_.size()); }
  const std::vector<std::string>& classes() const override { return classes_; }
  int label(int64_t i) const override { return places_[i].label; }
  std::string name(int64_t i) const override { return str(shards_[places_[i].shard].path(), "/", names_[i]); }

  void read(int64_t i, Bytes& out) const override {
    const Place& place = places_[i];
    out.resize(place.length);
    const InputFile& file = shards_[place.shard];
    if (file.read_at(place.offset, out.data(), out.size()) != out.size()) {
      fail(Exit::io, file.path(), ": became shorter after it was opened");
    }
  }

 private:
  void index(int shard) {
    const InputFile& file = shards_[shard];
    TarReader reader(file);
    std::string key, image;  // of the sample that is being collected
    Place place{-1, 0, shard, -1};
    const auto finish = [&] {
      if (place.offset < 0 && place.label < 0) return;
      if (place.offset < 0)
        fail(Exit::bad_data, file.path(), ": the sample ", key, " has no image (.jpg, .jpeg or .png)");
      if (place.label < 0) fail(Exit::bad_data, file.path(), ": the sample ", key, " has no label (.cls)");
      places_.push_back(place);
      names_.add(image);
    };
    while (const auto member = reader.next()) {
      const MemberName name(member->name);
      if (name.key.empty() || name.key.starts_with("__")) continue;
      if (name.key != key) {
        finish();
        key = name.key;
        place = {-1, 0, shard, -1};
      }
      if (name.extension == "cls") {
        if (place.label >= 0) fail(Exit::bad_data, file.path(), ": the sample ", key, " has two labels");
        place.label = read_label(file, *member);
      } else if (name.extension == "jpg" || name.extension == "jpeg" || name.extension == "png") {
        if (place.offset >= 0) fail(Exit::bad_data, file.path(), ": the sample ", key, " has two images");
        if (member->size > max_image_bytes)
          fail(Exit::bad_data, file.path(), ": ", member->name, " is larger than any image");
        place.offset = member->offset;
        place.length = uint32_t(member->size);
        image = member->name;
      }
    }
    finish();
  }

  // A decimal number, perhaps with a line end.
  static int read_label(const InputFile& file, const TarMember& member) {
    uint8_t text[16];
    const size_t length = file.read_at(member.offset, text, size_t(std::min<int64_t>(member.size, sizeof text)));
    int label = 0;
    size_t i = 0;
    for (; i < length && std::isdigit(text[i]) && label < max_label; i++) label = label * 10 + (text[i] - '0');
    const bool digits = i > 0;
    while (i < length && std::isspace(text[i])) i++;
    if (!digits || i != size_t(member.size) || label >= max_label) {
      fail(Exit::bad_data, file.path(), ": ", member.name, " must hold a class number below ", max_label);
    }
    return label;
  }

  std::vector<InputFile> shards_;
  std::vector<Place> places_;
  Names names_;
  std::vector<std::string> classes_;
};

}  // namespace

std::unique_ptr<Dataset> open_tar_shards(const std::vector<std::string>& shards, std::vector<DamagedImage>* damaged) {
  return std::make_unique<TarShards>(shards, damaged);
}
