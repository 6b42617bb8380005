// Archives as they are distributed: ImageNet's tars and CIFAR's binary files, read in place; and every way they can be wrong.
#include "helpers.h"

#include "data/meta_mat.h"
#include "data/sources.h"
#include "engine/random.h"

namespace {

struct ClassTar {
  std::string name;
  std::vector<Member> members;
};

Bytes tar_bytes(const fs::path& scratch, const std::vector<Member>& members) {
  write_tar(scratch.string(), members);
  const Bytes bytes = read_bytes(scratch);
  fs::remove(scratch);
  return bytes;
}

void write_tar_of_tars(const TemporaryFolder& folder, const std::string& file, const std::vector<ClassTar>& classes) {
  std::vector<Member> members;
  for (const ClassTar& c : classes) members.push_back({c.name, tar_bytes(folder.path / "scratch.tar", c.members)});
  write_tar(file, members);
}

// Neither the classes nor their images in order, as archives may have them.
std::vector<ClassTar> three_classes() {
  return {{"n03.tar", {{"n03_1.JPEG", small_jpeg(1)}}},
          {"n01.tar", {{"n01_9.JPEG", small_jpeg(2)}, {"n01_10.JPEG", small_jpeg(3)}, {"readme.txt", text("x")}}},
          {"n02.tar", {{"n02_7.JPEG", small_jpeg(4)}, {"n02_5.JPEG", small_jpeg(5)}}}};
}

const std::string train_tar = "ILSVRC2012_img_train.tar", val_tar = "ILSVRC2012_img_val.tar";
const std::string truth_file = "ILSVRC2012_validation_ground_truth.txt", synsets_file = "ILSVRC2012_synsets.txt";

}  // namespace

TEST_CASE("ilsvrc: the training archive is the folder that it unpacks to") {
  TemporaryFolder folder;
  write_tar_of_tars(folder, folder / train_tar, three_classes());
  for (const ClassTar& c : three_classes())
    for (const Member& m : c.members) write_bytes(folder.path / "unpacked/train" / c.name.substr(0, 3) / m.name, m.content);
  const auto unpacked = open_dataset(folder / "unpacked", "train");
  for (const std::string& path : {folder.path.string(), folder / "ILSVRC2012_img_{split}.tar"}) {
    const auto data = open_dataset(path, "train");
    CHECK(data->classes() == std::vector<std::string>{"n01", "n02", "n03"});
    REQUIRE(data->size() == unpacked->size());
    Bytes here, there;
    for (int64_t i = 0; i < data->size(); i++) {
      CHECK(data->label(i) == unpacked->label(i));
      CHECK(fs::path(data->name(i)).filename() == fs::path(unpacked->name(i)).filename());
      data->read(i, here);
      unpacked->read(i, there);
      CHECK(here == there);
    }
    CHECK(data->name(0) == folder / train_tar + "/n01.tar/n01_10.JPEG");
  }
  CHECK(has_split(folder.path.string(), "train"));
  CHECK(!has_split(folder.path.string(), "val"));
}

TEST_CASE("ilsvrc: a wrong training archive is refused by name") {
  TemporaryFolder folder;
  const auto opened = [&](const std::vector<ClassTar>& classes) {
    write_tar_of_tars(folder, folder / train_tar, classes);
    return opening(folder.path.string(), "train");
  };
  const std::vector<Member> one = {{"a.JPEG", small_jpeg(1)}};
  CHECK(opened({{"n01.tar", one}}).exit == Exit::ok);
  CHECK(opened({{"n01.tar", one}, {"n01.tar", one}}).says("n01.tar comes twice"));
  CHECK(opened({{"n01.tar", {one[0], one[0]}}}).says("a.JPEG comes twice"));
  CHECK(opened({{"n01.tar", one}, {"n02.tar", {}}}).says("the class n02 is empty"));
  CHECK(opened({{"n01.tar", one}, {"n02.txt", {}}}).says("n02.txt is no tar file"));
  CHECK(opened({{"n01.tar", one}, {"../n02.tar", one}}).says("leaves the folder"));
  CHECK(opened({{"n01.tar", {{"../../a.JPEG", {}}}}}).says("leaves the folder"));

  // The inner tar cut, the outer one whole: it must not be read on into what follows.
  for (const size_t length : {size_t(100), size_t(700), size_t(1024)}) {
    Bytes inner = tar_bytes(folder.path / "scratch.tar", one);
    REQUIRE(inner.size() > length);
    inner.resize(length);
    write_tar(folder / train_tar, {{"n01.tar", inner}, {"n02.tar", tar_bytes(folder.path / "scratch.tar", one)}});
    const Outcome result = opening(folder.path.string(), "train");
    CHECK(result.exit == Exit::bad_data);
    CHECK(result.says("truncated"));
  }
  write_tar_of_tars(folder, folder / train_tar, three_classes());
  const Bytes good = read_bytes(folder / train_tar);
  for (size_t length = 0; length < good.size() - 512; length += 256) {
    write_bytes(folder / train_tar, std::span(good).first(length));
    CHECK_MESSAGE(opening(folder.path.string(), "train").exit == Exit::bad_data, "cut to ", length);
  }
}

TEST_CASE("ilsvrc: the validation archive takes its labels from the devkit") {
  TemporaryFolder folder;
  const std::vector<Member> images = {{"ILSVRC2012_val_00000003.JPEG", small_jpeg(3)},
                                      {"ILSVRC2012_val_00000001.JPEG", small_jpeg(1)},
                                      {"ILSVRC2012_val_00000002.JPEG", small_jpeg(2)}};
  const std::string truth = "3\n1\n2\n", synsets = "1 n09 kit fox\n2\tn01\tsetter\nn05 3\n1001 n77 animal\n";
  const auto opened = [&](const std::string& truth, const std::string& synsets) {
    write_tar(folder / val_tar, images);
    write_text(folder.path / "ILSVRC2012_devkit_t12/data" / truth_file, truth);
    write_text(folder.path / synsets_file, synsets);
    return opening(folder.path.string(), "val");
  };
  REQUIRE(opened(truth, synsets).what == "");
  for (const std::string& path : {folder.path.string(), folder / "ILSVRC2012_img_{split}.tar"}) {
    const auto data = open_dataset(path, "val");
    CHECK(data->classes() == std::vector<std::string>{"n01", "n05", "n09"});
    REQUIRE(data->size() == 3);
    CHECK(std::vector<int>{data->label(0), data->label(1), data->label(2)} == std::vector<int>{1, 2, 0});
    Bytes bytes;
    data->read(2, bytes);
    CHECK(bytes == small_jpeg(3));
  }
  CHECK(opened("3\r\n1\r\n2\r\n", "2 n01\r\n1 n09\r\n3 n05\r\n").what == "");
  CHECK(opened("3\n1\n", synsets).says("has no line"));
  CHECK(opened("3\n1\n2\n2\n", synsets).says("has 4 lines"));
  CHECK(opened("3\n1\n1001\n", synsets).says("line 3 must be an ID"));
  CHECK(opened("3\nx\n1\n", synsets).says("line 2 must be an ID"));
  CHECK(opened(truth, "1 n09\n1 n01\n").says("the ID 1 comes twice"));
  CHECK(opened(truth, "1 n09\n2 n09\n3 n05\n").says("the synset n09 comes twice"));
  CHECK(opened(truth, "1\n").says("a line must say"));
  CHECK(opened(truth, "").says("names no synset"));
  fs::remove(folder / synsets_file);
  CHECK(opening(folder.path.string(), "val").exit == Exit::no_input);
  CHECK(opening(folder.path.string(), "val").says(synsets_file));
}

TEST_CASE("ilsvrc: the devkit as it is distributed labels the validation archive, torchvision's way") {
  TemporaryFolder folder;
  write_tar(folder / val_tar, {{"ILSVRC2012_val_00000001.JPEG", small_jpeg(1)}, {"ILSVRC2012_val_00000002.JPEG", small_jpeg(2)},
                               {"ILSVRC2012_val_00000003.JPEG", small_jpeg(3)}});
  const std::string archive = folder / "ILSVRC2012_devkit_t12.tar.gz", inside = "ILSVRC2012_devkit_t12/data/";
  const Bytes deflated = read_bytes(SOURCE_DIR "/tests/golden/meta.mat"), plain = read_bytes(SOURCE_DIR "/tests/golden/meta_plain.mat");
  const auto devkit = [&](const std::vector<Member>& members) { return tar_bytes(folder.path / "scratch.tar", members); };
  const Member truth{inside + truth_file, text("3\n1\r\n2\n")}, meta{inside + "meta.mat", deflated};
  const auto check_labels = [&] {
    const auto data = open_dataset(folder.path.string(), "val");
    CHECK(data->classes() == std::vector<std::string>{"n01", "n05", "n09"});
    REQUIRE(data->size() == 3);
    CHECK(std::vector<int>{data->label(0), data->label(1), data->label(2)} == std::vector<int>{1, 2, 0});
  };
  const Bytes whole = devkit({{"ILSVRC2012_devkit_t12/readme.txt", text("passed over")}, meta, truth});
  write_gzip(archive, whole);
  check_labels();
  write_gzip(archive, devkit({truth, {meta.name, plain}}));
  check_labels();

  const auto opened = [&](const Bytes& tar) {
    write_gzip(archive, tar);
    return opening(folder.path.string(), "val");
  };
  CHECK(opened(devkit({truth})).says("holds no " + meta.name));
  CHECK(opened(devkit({meta})).says("holds no " + truth.name));
  CHECK(opened(devkit({truth, meta, truth})).says("comes twice"));
  CHECK(opened(devkit({{truth.name, text("3\n4\n2\n")}, meta})).says("line 2 must be an ID"));   // an inner node
  CHECK(opened(devkit({{truth.name, text("3\n1\n")}, meta})).says("has no line"));
  CHECK(opened(text("no tar")).says(archive + ": "));
  CHECK(opened(Bytes(max_devkit_bytes + 1)).says("inflates to more than the limit of 67108864 bytes"));
  write_gzip(archive, whole);
  const Bytes good = read_bytes(archive);
  for (size_t length = 0; length < good.size(); length += 1 + good.size() / 40) {
    write_bytes(archive, std::span(good).first(length));
    CHECK_MESSAGE(opening(folder.path.string(), "val").exit == Exit::bad_data, "cut to ", length);
  }
  fs::remove(archive);
  CHECK(opening(folder.path.string(), "val").exit == Exit::no_input);
  CHECK(opening(folder.path.string(), "val").says("ILSVRC2012_devkit_t12.tar.gz"));
  write_bytes(folder.path / truth.name, truth.content);
  write_bytes(folder.path / meta.name, plain);
  check_labels();
}

TEST_CASE("ilsvrc: of meta.mat three fields are read, and the rest is refused") {
  const Bytes plain = read_bytes(SOURCE_DIR "/tests/golden/meta_plain.mat"), deflated = read_bytes(SOURCE_DIR "/tests/golden/meta.mat");
  const std::map<int, std::string> expected = {{1, "n09"}, {2, "n01"}, {3, "n05"}};
  CHECK(read_meta_mat(plain, "m") == expected);
  CHECK(read_meta_mat(deflated, "m") == expected);
  const auto refusal = [](const Bytes& file) {
    const Outcome o = outcome([&] { read_meta_mat(file, "m"); });
    CHECK((o.exit == Exit::bad_data || o.exit == Exit::ok));
    return o.what;
  };
  for (size_t length = 0; length < plain.size(); length++) CHECK_UNARY(!refusal({plain.begin(), plain.begin() + long(length)}).empty());
  RandomSequence draw(RandomStream(1, "meta"), 0, 0);
  for (size_t i = 0; i < plain.size(); i++) {
    Bytes bad = plain;
    bad[i] ^= uint8_t(1 << draw.below(8));
    refusal(bad);   // under the sanitizers a test of memory
  }
  const auto with = [&](const std::string& from, const std::string& to) {
    Bytes other = plain;
    const auto at = std::search(other.begin(), other.end(), from.begin(), from.end());
    REQUIRE(at != other.end());
    std::copy(to.begin(), to.end(), at);
    return other;
  };
  const auto replaced = [&](const std::string& from, const std::string& to) { return refusal(with(from, to)); };
  // The ID is what the file says, not the place; a word may be of 16 bits a letter, as MATLAB writes them.
  using std::string_literals::operator""s;
  CHECK(read_meta_mat(with("\4\0\2\0\1\0\0\0"s, "\4\0\2\0\7\0\0\0"s), "m") == std::map<int, std::string>{{7, "n09"}, {2, "n01"}, {3, "n05"}});
  const std::string narrow = "\20\0\3\0n09\0"s;
  CHECK(read_meta_mat(with(narrow, "\4\0\4\0n\0009\0"s), "m").at(1) == "n9");
  CHECK(replaced(narrow, "\4\0\4\0n\0009\1"s) == "m: a WNID is no word");
  CHECK(replaced("IM", "MI") == "m: is no little-endian MATLAB 5 file");
  CHECK(replaced("WNID", "WNIE") == "m: its synsets have no field WNID");
  CHECK(replaced("num_children", "num_childrem") == "m: its synsets have no field num_children");
  CHECK(replaced("synsets", "sinsets") == "m: has no variable synsets");
  CHECK(replaced("n09", "n 9") == "m: a WNID is no word");

  // A variable that inflates to more than any devkit holds.
  Bytes bomb(deflated.begin(), deflated.begin() + 128), packed(1 << 20);
  const Bytes zeros(max_devkit_bytes + 1);
  uLongf size = packed.size();
  REQUIRE(compress2(packed.data(), &size, zeros.data(), zeros.size(), 1) == Z_OK);
  for (const uint32_t number : {15u, uint32_t(size)})
    for (const int shift : {0, 8, 16, 24}) bomb.push_back(uint8_t(number >> shift));
  bomb.insert(bomb.end(), packed.begin(), packed.begin() + long(size));
  CHECK(refusal(bomb) == "m: inflates to more than the limit of 67108864 bytes");
}

TEST_CASE("cifar: pixels, labels and names of both") {
  TemporaryFolder folder;
  // Image i has the label i % 3; its red is i, its green the column, its blue the row.
  const auto records = [](int first, int count, int label_bytes) {
    Bytes bytes;
    for (int i = first; i < first + count; i++) {
      if (label_bytes == 2) bytes.push_back(99);
      bytes.push_back(uint8_t(i % 3));
      for (int p = 0; p < 3 * 1024; p++) bytes.push_back(uint8_t(p < 1024 ? i : p < 2048 ? p % 32 : (p - 2048) / 32));
    }
    return bytes;
  };
  for (int b = 1; b <= 5; b++) write_bytes(folder.path / str("ten/data_batch_", b, ".bin"), records(2 * b - 2, 2, 1));
  write_bytes(folder.path / "ten/test_batch.bin", records(20, 4, 1));
  write_text(folder.path / "ten/batches.meta.txt", "ant\nbee\ncow\n\n");
  write_bytes(folder.path / "hundred/train.bin", records(0, 7, 2));
  write_bytes(folder.path / "hundred/test.bin", records(20, 4, 2));
  write_text(folder.path / "hundred/fine_label_names.txt", "ant\nbee\ncow\n");
  for (const char* kind : {"ten", "hundred"}) {
    const bool ten = std::string(kind) == "ten";
    const auto train = open_dataset(folder / kind, "train"), test = open_dataset(folder / kind, "val");
    CHECK(train->size() == (ten ? 10 : 7));
    CHECK(test->size() == 4);
    CHECK(train->classes() == std::vector<std::string>{"ant", "bee", "cow"});
    CHECK(train->label(5) == 2);
    CHECK(train->name(5) == folder / (ten ? "ten/data_batch_3.bin[1]" : "hundred/train.bin[5]"));
    CHECK(test->label(0) == 2);
    Bytes bytes;
    Decoder decoder;
    Image image;
    train->read(5, bytes);
    CHECK(decoder.open(bytes).width == 32);
    decoder.read({0, 0, 32, 32}, 3, image);
    for (int y = 0; y < 32; y++)
      for (int x = 0; x < 32; x++) {
        const uint8_t* pixel = &image.pixels[size_t(y * 32 + x) * 3];
        REQUIRE((pixel[0] == 5 && pixel[1] == x && pixel[2] == y));
      }
  }
  const std::string batch = folder / "ten/data_batch_4.bin";
  Bytes bad = records(6, 2, 1);
  bad[0] = 3;
  write_bytes(batch, bad);
  CHECK(opening(folder / "ten", "train").says("the label 3"));
  bad.pop_back();
  write_bytes(batch, bad);
  CHECK(opening(folder / "ten", "train").says("truncated"));
  fs::remove(batch);
  CHECK(opening(folder / "ten", "train").exit == Exit::no_input);
}
