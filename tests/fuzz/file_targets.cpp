// file_targets.cpp: what datasets, listings and weights are read from.
#define DOCTEST_CONFIG_DISABLE
#include "tests/data/make_jpeg.h"

#include "data/meta_mat.h"
#include "data/sources.h"
#include "engine/random.h"
#include "engine/safetensors.h"
#include "target.h"

namespace {

// Files in memory.
struct Files {
  TemporaryFolder folder;
  std::string put(const std::string& name, Input bytes) const {
    write_bytes(folder / name, bytes);
    return folder / name;
  }
};
const Files& files() {
  static const Files made;
  return made;
}

void read_all(const Dataset& dataset) {
  Bytes bytes;
  for (int64_t i = 0; i < dataset.size(); i++) {
    if (dataset.label(i) < 0 || dataset.label(i) >= int(dataset.classes().size())) throw Finding("a label without a class");
    if (dataset.name(i).empty()) throw Finding("an image without a name");
    dataset.read(i, bytes);
  }
}

void tar(Input input) {
  const InputFile file(files().put("input.tar", input));
  refuses([&] {
    TarReader reader(file);
    while (const auto member = reader.next())
      if (member->size < 0 || member->offset < 512 || member->size > file.size() - member->offset || member->name.starts_with("../"))
        throw Finding("a member outside its file");
  });
}

void shards(Input input) {
  const std::string path = files().put("input.tar", input);
  refuses([&] { read_all(*open_tar_shards({path}, nullptr, {})); });
  std::vector<DamagedImage> damaged;
  refuses([&] { read_all(*open_tar_shards({path}, &damaged, {})); });
}

void class_tars(Input input) {
  const std::string path = files().put("input.tar", input);
  refuses([&] { is_tar_of_tars(path); });
  refuses([&] { read_all(*open_class_tars(path, {})); });
}

// The two text files that label ImageNet's validation images: the input up to a zero byte, and the rest.
void ilsvrc(Input input) {
  static const Bytes images = read_bytes([] {
    const std::string path = files().folder / "made.tar";
    write_tar(path, {{"ILSVRC2012_val_00000001.JPEG", text("x")}, {"ILSVRC2012_val_00000002.JPEG", text("yy")}});
    return path;
  }());
  const auto zero = std::find(input.begin(), input.end(), uint8_t(0));
  const std::string path = files().put("ILSVRC2012_img_val.tar", images);
  files().put("ILSVRC2012_validation_ground_truth.txt", Input(input.begin(), zero));
  files().put("ILSVRC2012_synsets.txt", Input(zero == input.end() ? zero : zero + 1, input.end()));
  refuses([&] { read_all(*open_ilsvrc_val(path, {})); });
}

// The archive of the devkit before it is compressed, beside a validation image.
void devkit(Input input) {
  const std::string path = files().folder / "devkit/ILSVRC2012_img_val.tar";
  fs::create_directories(files().folder / "devkit");
  write_tar(path, {{"ILSVRC2012_val_00000001.JPEG", text("x")}});
  gzFile file = gzopen((files().folder / "devkit/ILSVRC2012_devkit_t12.tar.gz").c_str(), "wb1");
  gzwrite(file, input.data(), unsigned(input.size()));
  gzclose(file);
  refuses([&] { read_all(*open_ilsvrc_val(path, {})); });
}

void meta_mat(Input input) {
  refuses([&] { read_meta_mat(input, "meta.mat"); });
}

void idx_images(Input input) {
  const std::string labels = files().put("labels", idx({3}, 3));
  refuses([&] { read_all(*open_idx(files().put("images", input), labels)); });
}

void idx_labels(Input input) {
  const std::string images = files().put("images", idx({3, 2, 2}, 12));
  refuses([&] { read_all(*open_idx(images, files().put("labels", input))); });
}

// The first byte says how many bytes of labels there are, the second how many classes.
void cifar(Input input) {
  if (input.size() < 2) return;
  std::string names;
  for (int i = 0; i <= input[1] % 16; i++) names += str("class", i, "\n");
  const std::string classes = files().put("classes.txt", text(names));
  refuses([&] { read_all(*open_cifar({files().put("batch.bin", input.subspan(2))}, 1 + input[0] % 2, classes)); });
}

// A remembered listing of a tar file that is there: it is taken or not, and no image of one that is taken lies outside the file.
const std::string listed = "fuzz";
std::string listing_file() {
  char name[40];
  std::snprintf(name, sizeof name, "cache/images-%016llx.index", static_cast<unsigned long long>(hash_name(listed)));
  return name;
}

void listing(Input input) {
  const std::string tar = files().put("listed.tar", Bytes(3000));
  files().put(listing_file(), input);
  refuses([&] { read_all(*open_tar_images({tar}, cached_index(listed, {files().folder / "cache", 1}, [] { return ImageIndex(); }))); });
}

void weights(Input input) {
  const std::string path = files().put("weights.safetensors", input);
  refuses([&] {
    const SafetensorsFile file(path);
    volatile uint8_t sum = 0;
    for (const auto& [name, entry] : file.tensors())
      for (size_t i = 0; i < entry.bytes; i += 1 + entry.bytes / 64) sum = uint8_t(sum + entry.data[i]);
  });
}

Bytes tar_of(const std::vector<Member>& members) {
  const std::string path = files().folder / "seed.tar";
  write_tar(path, members);
  return read_bytes(path);
}

std::vector<Bytes> tars() {
  return {tar_of(two_samples()), tar_of({{"x/a.jpg", text("1")}, {"x/a.json", text("{\"label\": 3, \"w\": [1, 2]}")}}), tar_of({{"a.txt", {}}})};
}

std::vector<Bytes> metas() { return {read_bytes(SOURCE_DIR "/tests/golden/meta.mat"), read_bytes(SOURCE_DIR "/tests/golden/meta_plain.mat")}; }

std::vector<Bytes> devkits() {
  const std::string folder = "ILSVRC2012_devkit_t12/data/";
  return {tar_of({{folder + "ILSVRC2012_validation_ground_truth.txt", text("3\n")}, {folder + "meta.mat", metas()[0]}})};
}

std::vector<Bytes> nested_tars() {
  return {tar_of({{"n01.tar", tar_of({{"a.JPEG", text("1")}, {"b.JPEG", text("22")}})}, {"n02.tar", tar_of({{"c.jpg", text("3")}})}})};
}

std::vector<Bytes> numbers(const std::vector<int>& shape, size_t count) {
  const Bytes plain = idx(shape, count);
  const std::string path = files().folder / "seed.gz";
  const gzFile file = gzopen(path.c_str(), "wb");
  gzwrite(file, plain.data(), unsigned(plain.size()));
  gzclose(file);
  return {plain, read_bytes(path)};
}

std::vector<Bytes> cifars() {
  std::vector<Bytes> all;
  for (const uint8_t label_bytes : {0, 1}) {
    Bytes bytes = {label_bytes, 9};
    bytes.resize(2 + size_t(2 * (1 + label_bytes + 3072)), 5);
    all.push_back(bytes);
  }
  return all;
}

std::vector<Bytes> listings() {
  ImageIndex index;
  index.classes = {"cat", "dog"};
  for (const char* name : {"a.jpg", "folder/b.jpg", "c.png"}) index.names.add(name);
  index.labels = {0, 1, 1};
  index.places = {{512, 100, 0}, {1024, 1, 0}, {2990, 10, 0}};
  cached_index(listed, {files().folder / "cache", 1}, [&] { return index; });
  return {read_bytes(files().folder / listing_file())};
}

std::vector<Bytes> weight_files() {
  const std::vector<float> values(12, 0.5f);
  const auto* data = reinterpret_cast<const uint8_t*>(values.data());
  const std::string path = files().folder / "seed.safetensors";
  write_safetensors(path, {{"a.weight", {"F32", {3, 4}, data, 48}}, {"b", {"F32", {}, data, 4}}, {"c", {"U8", {2, 0}, data, 0}}}, {{"format", "pt"}});
  return {read_bytes(path)};
}

}  // namespace

std::vector<FuzzTarget> file_targets() {
  const std::string labels = "2\n1\n", synsets = "1 n01 dog\n2 n02 cat\nn03 1001\n";
  return {{"tar", FuzzTarget::tar, false, tar, tars()},
          {"shards", FuzzTarget::tar, false, shards, tars()},
          {"class_tars", FuzzTarget::tar, false, class_tars, nested_tars()},
          {"ilsvrc", FuzzTarget::text, false, ilsvrc, {text(labels + std::string(1, 0) + synsets)}},
          {"devkit", FuzzTarget::tar, false, devkit, devkits()},
          {"meta_mat", FuzzTarget::numbers, false, meta_mat, metas()},
          {"idx_images", FuzzTarget::numbers, false, idx_images, numbers({3, 4, 5}, 60)},
          {"idx_labels", FuzzTarget::numbers, false, idx_labels, numbers({3}, 3)},
          {"cifar", FuzzTarget::numbers, false, cifar, cifars()},
          {"listing", FuzzTarget::index, false, listing, listings()},
          {"weights", FuzzTarget::text, false, weights, weight_files()}};
}

const std::vector<FuzzTarget>& fuzz_targets() {
  static const std::vector<FuzzTarget> all = [] {
    std::vector<FuzzTarget> targets = image_targets();
    for (FuzzTarget& target : file_targets()) targets.push_back(std::move(target));
    return targets;
  }();
  return all;
}

const FuzzTarget& fuzz_target(const std::string& name) {
  for (const FuzzTarget& target : fuzz_targets())
    if (target.name == name) return target;
  fail(Exit::usage, "there is no fuzz target ", name);
}
