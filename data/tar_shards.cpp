// tar_shards.cpp: WebDataset shards. One walk finds all samples; after that any of them is one read away.
#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "data/sources.h"
#include "data/tar.h"

namespace fs = std::filesystem;

namespace {

constexpr int max_label = 1'000'000;
constexpr int64_t max_label_text = 1 << 20;

// KEY.EXTENSION: the key ends at the first dot of the last component; the extension is lower-cased.
struct MemberName {
  std::string key, extension;
  explicit MemberName(const std::string& name) {
    const size_t slash = name.rfind('/');
    const size_t dot = name.find('.', slash == std::string::npos ? 0 : slash + 1);
    if (dot == std::string::npos) return;
    key = name.substr(0, dot);
    extension = name.substr(dot + 1);
    std::transform(extension.begin(), extension.end(), extension.begin(), [](unsigned char c) { return std::tolower(c); });
  }
};

// A decimal number, perhaps with a line end; -1 for anything else.
int parse_label(const std::string& text) {
  int label = 0;
  size_t i = 0;
  for (; i < text.size() && std::isdigit(uint8_t(text[i])) && label < max_label; i++) label = label * 10 + (text[i] - '0');
  const bool digits = i > 0;
  while (i < text.size() && std::isspace(uint8_t(text[i]))) i++;
  return digits && i == text.size() && label < max_label ? label : -1;
}

// {"label": 3} or {"cls": 3}, whatever else it says; nothing where it says neither.
std::optional<int> parse_json_label(const std::string& text) {
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object()) return -1;
  for (const char* key : {"label", "cls"}) {
    const auto value = json.find(key);
    if (value == json.end()) continue;
    return value->is_number_integer() ? parse_label(value->dump()) : -1;
  }
  return {};
}

// The samples of one shard: consecutive members with the same key.
class Shard {
 public:
  Shard(const InputFile& file, int number, ImageIndex& out) : file_(file), number_(number), out_(out) {}

  void walk() {
    TarReader reader(file_);
    while (const auto member = reader.next()) {
      const MemberName name(member->name);
      if (name.key.empty() || name.key.starts_with("__")) continue;
      if (name.key != key_) begin(name.key);
      if (name.extension == "cls" || name.extension == "json") take_label(*member, name.extension == "json");
      if (name.extension == "jpg" || name.extension == "jpeg" || name.extension == "png") take_image(*member);
    }
    finish();
  }

 private:
  template <class... A> [[noreturn]] void refuse(const A&... what) const { fail(Exit::bad_data, file_.path(), ": ", what...); }

  void begin(const std::string& key) {
    finish();
    key_ = key;
    image_.clear();
    cls_ = json_ = {};
    has_json_ = false;
    if (!seen_.insert(key).second) refuse("the key ", key, " comes twice, with others in between");
  }

  void take_image(const TarMember& member) {
    if (!image_.empty()) refuse("the sample ", key_, " has two images");
    if (member.size > max_image_bytes) refuse(member.name, " is larger than any image");
    image_ = member.name;
    place_ = {member.offset, uint32_t(member.size), number_};
  }

  void take_label(const TarMember& member, bool json) {
    if (json ? has_json_ : cls_.has_value()) refuse("the sample ", key_, " has two labels");
    if (member.size > max_label_text) refuse(member.name, " is too long for a label");
    std::string text(size_t(member.size), 0);
    text.resize(file_.read_at(member.offset, reinterpret_cast<uint8_t*>(text.data()), text.size()));
    has_json_ = has_json_ || json;
    (json ? json_ : cls_) = json ? parse_json_label(text) : parse_label(text);
    const std::optional<int> label = json ? json_ : cls_;
    if (label && *label < 0 && json) refuse(member.name, " must be an object whose \"label\" is a class number below ", max_label);
    if (label && *label < 0) refuse(member.name, " must hold a class number below ", max_label);
  }

  void finish() {
    if (image_.empty() && !cls_ && !json_) return;
    if (image_.empty()) refuse("the sample ", key_, " has no image (.jpg, .jpeg or .png)");
    if (!cls_ && !json_) refuse("the sample ", key_, " has no label (.cls, or \"label\" in .json)");
    if (cls_ && json_ && *cls_ != *json_) refuse("the sample ", key_, " has the label ", *cls_, " in .cls and ", *json_, " in .json");
    out_.names.add(image_);
    out_.labels.push_back(cls_ ? *cls_ : *json_);
    out_.places.push_back(place_);
  }

  const InputFile& file_;
  const int number_;
  ImageIndex& out_;
  std::unordered_set<std::string> seen_;
  std::string key_, image_;        // of the sample that is being collected
  Place place_;
  std::optional<int> cls_, json_;
  bool has_json_ = false;          // perhaps without a label in it
};

ImageIndex walk_shards(const std::vector<std::string>& shards, std::vector<DamagedImage>* damaged) {
  ImageIndex index;
  for (size_t i = 0; i < shards.size(); i++) {
    index.sources.push_back(stamp_of(shards[i]));
    try {
      const InputFile file(shards[i]);
      Shard(file, int(i), index).walk();
    } catch (const Error& error) {
      if (!damaged || error.exit != Exit::bad_data) throw;
      damaged->push_back({int64_t(index.names.size()), shards[i], error.what()});
    }
  }
  const bool explained = damaged && !damaged->empty();
  if (index.names.size() == 0 && !explained) fail(Exit::bad_data, shards.front(), ": there are no samples (KEY.jpg beside KEY.cls) in it");
  // Only their number counts here: names come from a file of their own.
  int32_t last = -1;
  for (const int32_t label : index.labels) last = std::max(last, label);
  for (int32_t label = 0; label <= last; label++) index.classes.push_back(std::to_string(label));
  return index;
}

}  // namespace

std::unique_ptr<Dataset> open_tar_shards(const std::vector<std::string>& shards, std::vector<DamagedImage>* damaged, const IndexCache& cache) {
  std::vector<std::string> paths;
  std::string key = "shards";
  for (const std::string& shard : shards) {
    paths.push_back(fs::absolute(shard).lexically_normal().string());
    key += "\n" + paths.back();
  }
  // Who asks for the damage wants every shard read.
  ImageIndex index = cached_index(key, damaged ? IndexCache{} : cache, [&] { return walk_shards(paths, damaged); });
  const std::string folder = fs::path(paths.front()).parent_path().string();
  index.classes = name_classes(read_class_names(folder), int(index.classes.size()), folder);
  return open_tar_images(paths, std::move(index));
}
