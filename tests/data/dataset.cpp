// Datasets: folders, shards and IDX files; and every way they can be wrong.
#include "helpers.h"

#include "data/dataset.h"

#include <zlib.h>

#include "data/pack.h"
#include "data/verify.h"
#include "engine/random.h"

namespace {

Outcome opening(const std::string& path, const std::string& split) {
  return outcome([&] { open_dataset(path, split); });
}

Bytes idx(std::vector<int> shape, size_t values) {
  Bytes bytes = {0, 0, 8, uint8_t(shape.size())};
  for (const int n : shape) bytes.insert(bytes.end(), {uint8_t(n >> 24), uint8_t(n >> 16), uint8_t(n >> 8), uint8_t(n)});
  for (size_t i = 0; i < values; i++) bytes.push_back(uint8_t(shape.size() == 1 ? i % 3 : i * 7));
  return bytes;
}

void write_gzip(const std::string& path, const Bytes& bytes) {
  gzFile file = gzopen(path.c_str(), "wb");
  REQUIRE(gzwrite(file, bytes.data(), unsigned(bytes.size())) == int(bytes.size()));
  gzclose(file);
}

struct Member {
  std::string name;
  Bytes content;
};

void write_tar(const std::string& path, const std::vector<Member>& members) {
  TarWriter tar(path);
  for (const Member& member : members) tar.add(member.name, member.content);
  tar.close();
}

Bytes text(const std::string& s) { return {s.begin(), s.end()}; }

std::vector<Member> two_samples() {
  return {{"a.jpg", small_jpeg(1)}, {"a.cls", text("2")}, {"b.png", golden_images()["rgb.png"].bytes}, {"b.cls", text("0\n")}};
}

void fix_checksum(uint8_t* header) {
  std::fill_n(header + 148, 8, ' ');
  unsigned sum = 0;
  for (int i = 0; i < 512; i++) sum += header[i];
  std::snprintf(reinterpret_cast<char*>(header + 148), 7, "%06o", sum);
  header[155] = ' ';
}

std::string run(const std::string& command) {
  FILE* pipe = popen(command.c_str(), "r");
  std::string out;
  for (int c; (c = fgetc(pipe)) != EOF;) out += char(c);
  return pclose(pipe) == 0 ? out : "failed: " + out;
}

}  // namespace

TEST_CASE("folder: classes and files in torchvision's order") {
  TemporaryFolder folder;
  const fs::path train = folder.path / "train";
  for (const char* name : {"dog/2.jpg", "dog/10.JPEG", "Cat/x.png", "dog/deep/0.jpg", "dog/notes.txt", "dog/a.deep/1.jpg"}) {
    write_bytes(train / name, small_jpeg(int(std::string(name).size())));
  }
  write_text(train / "labels.csv", "not a class");
  const auto data = open_dataset(folder.path.string(), "train");
  CHECK(data->classes() == std::vector<std::string>{"Cat", "dog"});
  std::vector<std::string> names;
  for (int64_t i = 0; i < data->size(); i++) names.push_back(fs::relative(data->name(i), train).string());
  CHECK(names == std::vector<std::string>{"Cat/x.png", "dog/10.JPEG", "dog/2.jpg", "dog/a.deep/1.jpg", "dog/deep/0.jpg"});
  CHECK(data->label(0) == 0);
  CHECK(data->label(4) == 1);
  Bytes bytes;
  data->read(4, bytes);
  CHECK(bytes == small_jpeg(14));
}

TEST_CASE("folder: a circle of links ends") {
  TemporaryFolder folder;
  write_bytes(folder.path / "train/dog/1.jpg", small_jpeg(1));
  fs::create_directory_symlink(folder.path / "train/dog", folder.path / "train/dog/again");
  CHECK(open_dataset(folder.path.string(), "train")->size() == 1);
}

TEST_CASE("folder: what is missing is named") {
  TemporaryFolder folder;
  CHECK(opening(folder / "nowhere", "train").exit == Exit::no_input);
  CHECK(opening(folder / "nowhere", "train").says("nowhere"));
  CHECK(opening(folder.path.string(), "train").exit == Exit::no_input);
  fs::create_directories(folder.path / "train");
  CHECK(opening(folder.path.string(), "train").exit == Exit::bad_data);
  write_bytes(folder.path / "train/dog/1.jpg", small_jpeg(1));
  fs::create_directories(folder.path / "train/wolf");
  const Outcome result = opening(folder.path.string(), "train");
  CHECK(result.exit == Exit::bad_data);
  CHECK(result.says("wolf"));
}

TEST_CASE("splits: val and test stand in for each other, train does not") {
  TemporaryFolder folder;
  write_bytes(folder.path / "test/dog/1.jpg", small_jpeg(1));
  CHECK(open_dataset(folder.path.string(), "val")->size() == 1);
  CHECK(open_dataset(folder.path.string(), "test")->size() == 1);
  CHECK(opening(folder.path.string(), "train").exit == Exit::no_input);
}

TEST_CASE("shards: samples, labels and class names") {
  TemporaryFolder folder;
  fs::create_directories(folder.path / "train");
  write_tar(folder / "train/000000.tar", two_samples());
  write_tar(folder / "train/000001.tar", {{"__meta__.json", {}}, {"./d.e/c.JPG", small_jpeg(3)}, {"./d.e/c.cls", text("1")},
                                          {"./d.e/c.txt", text("a caption")}, {"README", text("x")}});
  auto data = open_dataset(folder.path.string(), "train");
  REQUIRE(data->size() == 3);
  CHECK(data->classes() == std::vector<std::string>{"0", "1", "2"});
  CHECK(data->label(0) == 2);
  CHECK(data->label(2) == 1);
  CHECK(data->name(2) == folder / "train/000001.tar/d.e/c.JPG");
  Bytes bytes;
  data->read(2, bytes);
  CHECK(bytes == small_jpeg(3));

  write_text(folder.path / "classes.txt", "ant\nbee\ncow\n");
  CHECK(open_dataset(folder.path.string(), "train")->classes() == std::vector<std::string>{"ant", "bee", "cow"});
  write_text(folder.path / "train/classes.txt", "ant\r\nbee");
  CHECK(opening(folder.path.string(), "train").says("names 2 classes"));
}

TEST_CASE("shards: a range of them, and a split in their name") {
  TemporaryFolder folder;
  write_tar(folder / "x-train-08.tar", {{"a.jpg", small_jpeg(1)}, {"a.cls", text("0")}});
  write_tar(folder / "x-train-09.tar", two_samples());
  write_tar(folder / "x-train-10.tar", two_samples());
  CHECK(open_dataset(folder / "x-{split}-{08..10}.tar", "train")->size() == 5);
  CHECK(open_dataset(folder / "x-train-{09..10}.tar", "")->size() == 4);
  CHECK(open_dataset(folder / "x-train-10.tar", "")->size() == 2);
  CHECK(opening(folder / "x-{split}-{08..11}.tar", "train").exit == Exit::no_input);
  CHECK(opening(folder / "x-{split}-{08..10}.tar", "val").exit == Exit::no_input);
  CHECK(opening(folder / "x-train-{08..10}.tar", "val").exit == Exit::config);  // it would evaluate on the training set
  CHECK(opening(folder / "x-{split}-{10..08}.tar", "train").exit == Exit::config);
  CHECK(opening(folder / "x-{oops}.tar", "train").exit == Exit::config);
}

TEST_CASE("shards: wrong samples are named") {
  TemporaryFolder folder;
  const auto opened = [&](const std::vector<Member>& members) {
    write_tar(folder / "s.tar", members);
    return opening(folder / "s.tar", "");
  };
  CHECK(opened({}).says("no samples"));
  CHECK(opened({{"a.jpg", {}}}).says("no label"));
  CHECK(opened({{"a.cls", text("1")}}).says("no image"));
  CHECK(opened({{"a.jpg", {}}, {"a.png", {}}, {"a.cls", text("1")}}).says("two images"));
  CHECK(opened({{"a.jpg", {}}, {"a.cls", text("1")}, {"a.cls", text("1")}}).says("two labels"));
  for (const char* label : {"", "x", "-1", "1x", "99999999999999999999", "1000000", "1 2"}) {
    CHECK_MESSAGE(opened({{"a.jpg", {}}, {"a.cls", text(label)}}).says("class number"), label);
  }
}

TEST_CASE("tar: what the system's tar writes is read, in each of its formats") {
  TemporaryFolder folder;
  const std::string deep = std::string(90, 'd') + "/" + std::string(120, 'e');
  write_bytes(folder.path / "in" / deep / "a.jpg", small_jpeg(1));
  write_text(folder.path / "in" / deep / "a.cls", "1");
  for (const char* format : {"gnu", "pax"}) {
    const std::string file = folder / (std::string(format) + ".tar");
    CHECK(run(str("tar --sort=name --format=", format, " -C ", folder / "in", " -cf ", file, " . 2>&1")) == "");
    const auto data = open_dataset(file, "");
    REQUIRE(data->size() == 1);
    CHECK(data->name(0) == file + "/" + deep + "/a.jpg");
    Bytes bytes;
    data->read(0, bytes);
    CHECK(bytes == small_jpeg(1));
  }
  write_tar(folder / "ours.tar", two_samples());
  CHECK(run("tar -tf " + folder / "ours.tar") == "a.jpg\na.cls\nb.png\nb.cls\n");
}

TEST_CASE("tar: cut anywhere it is refused with its name") {
  TemporaryFolder folder;
  write_tar(folder / "whole.tar", two_samples());
  const Bytes whole = read_bytes(folder / "whole.tar");
  const size_t content = whole.size() - 1024;
  for (size_t length = 0; length < content + 512; length += length % 512 == 0 ? 256 : 256) {
    write_bytes(folder / "cut.tar", std::span(whole).first(length));
    const Outcome result = opening(folder / "cut.tar", "");
    CHECK_MESSAGE(result.exit == Exit::bad_data, "cut to ", length);
    CHECK(result.says("cut.tar"));
    CHECK(result.says("truncated"));
  }
}

TEST_CASE("tar: links, unsafe names and foreign files are refused") {
  TemporaryFolder folder;
  write_tar(folder / "good.tar", two_samples());
  const Bytes good = read_bytes(folder / "good.tar");
  const auto changed = [&](auto&& change) {
    Bytes bytes = good;
    change(bytes.data());
    fix_checksum(bytes.data());
    write_bytes(folder / "bad.tar", bytes);
    return opening(folder / "bad.tar", "");
  };
  CHECK(changed([](uint8_t*) {}).exit == Exit::ok);
  CHECK(changed([](uint8_t* h) { h[156] = '2'; }).says("link"));
  CHECK(changed([](uint8_t* h) { h[156] = '1'; }).says("link"));
  CHECK(changed([](uint8_t* h) { h[156] = '3'; }).says("not a plain file"));
  for (const char* name : {"/etc/a.jpg", "../a.jpg", "x/../../a.jpg", "x/..", ".."}) {
    CHECK_MESSAGE(changed([&](uint8_t* h) { std::memcpy(h, name, std::strlen(name) + 1); }).says("leaves the folder"), name);
  }
  CHECK(changed([](uint8_t* h) { h[124] = 0xff; }).says("damaged"));
  CHECK(changed([](uint8_t* h) { h[124] = 'z'; }).says("damaged"));
  Bytes flipped = good;
  flipped[3] ^= 1;
  write_bytes(folder / "bad.tar", flipped);
  CHECK(opening(folder / "bad.tar", "").says("not a tar file"));
  write_gzip(folder / "packed.tar", good);
  CHECK(opening(folder / "packed.tar", "").says("compressed"));
}

// A sanitizer build makes this a real test of memory.
TEST_CASE("tar: thousands of mutated files open or are refused") {
  TemporaryFolder folder;
  write_bytes(folder.path / "in/a.jpg", small_jpeg(1));
  write_text(folder.path / "in" / "a.cls", "1");
  const std::string deep = std::string(60, 'b') + "/" + std::string(60, 'c');  // needs the long-name form of each format
  write_bytes(folder.path / "in" / (deep + ".jpg"), small_jpeg(2));
  write_text(folder.path / "in" / (deep + ".cls"), "1");
  RandomSequence draw(RandomStream(7, "mutate tar"), 0, 0);
  int opened = 0, refused = 0;
  for (const char* format : {"gnu", "pax", "ustar"}) {
    const std::string file = folder / "m.tar";
    REQUIRE(run(str("tar --format=", format, " -C ", folder / "in", " -cf ", file, " . 2>&1")) == "");
    const Bytes good = read_bytes(file);
    for (int round = 0; round < 1000; round++) {
      Bytes bytes = good;
      const size_t header = 512 * draw.below(uint32_t(bytes.size() / 512));
      for (uint32_t i = draw.below(4); i > 0; i--) bytes[header + draw.below(512)] = uint8_t(draw.word());
      if (draw.chance(0.8)) fix_checksum(&bytes[header]);
      if (draw.chance(0.1)) bytes.resize(draw.below(uint32_t(bytes.size())));
      write_bytes(file, bytes);
      const Outcome result = outcome([&] {
        const auto data = open_dataset(file, "");
        Bytes image;
        for (int64_t i = 0; i < data->size(); i++) data->read(i, image);
      });
      CHECK_MESSAGE((result.exit == Exit::ok || result.exit == Exit::bad_data), result.what);
      (result.exit == Exit::ok ? opened : refused)++;
    }
  }
  CHECK(opened > 100);
  CHECK(refused > 100);
}

TEST_CASE("idx: plain and gzipped, labels and names") {
  TemporaryFolder folder;
  const fs::path home = folder.path / "fashion-mnist";
  write_bytes(home / "train-images-idx3-ubyte", idx({5, 4, 6}, 120));
  write_bytes(home / "train-labels-idx1-ubyte", idx({5}, 5));
  write_gzip((home / "t10k-images-idx3-ubyte.gz").string(), idx({2, 4, 6}, 48));
  write_gzip((home / "t10k-labels-idx1-ubyte.gz").string(), idx({2}, 2));
  const auto train = open_dataset(home.string(), "train"), test = open_dataset(home.string(), "val");
  CHECK(train->size() == 5);
  CHECK(test->size() == 2);
  CHECK(train->label(4) == 1);
  CHECK(train->classes()[9] == "Ankle boot");
  Decoder decoder;
  Bytes bytes;
  train->read(1, bytes);
  CHECK(decoder.open(bytes).width == 6);
  Image image;
  decoder.read({0, 0, 4, 6}, 1, image);
  CHECK(image.pixels[0] == uint8_t(24 * 7));
  CHECK(image.pixels[23] == uint8_t(47 * 7));
}

TEST_CASE("idx: damaged files are named") {
  TemporaryFolder folder;
  const std::string images = folder / "train-images-idx3-ubyte", labels = folder / "train-labels-idx1-ubyte";
  const auto opened = [&](const Bytes& i, const Bytes& l) {
    write_bytes(images, i);
    write_bytes(labels, l);
    return opening(folder.path.string(), "train");
  };
  CHECK(opened(idx({5, 4, 6}, 120), idx({5}, 5)).exit == Exit::ok);
  CHECK(opened(idx({5, 4, 6}, 119), idx({5}, 5)).says("truncated"));
  CHECK(opened(idx({5, 4, 6}, 121), idx({5}, 5)).says("more than"));
  CHECK(opened(idx({5, 4, 6}, 120), idx({4}, 4)).says("4 labels"));
  CHECK(opened(idx({5}, 5), idx({5}, 5)).says("not an IDX file"));
  CHECK(opened(idx({0, 4, 6}, 0), idx({0}, 0)).says("empty"));
  CHECK(opened({0, 0}, idx({5}, 5)).says("not an IDX file"));
  CHECK(opened({0, 0, 8, 3, 0}, idx({5}, 5)).says("header"));
  CHECK(opened(idx({0x7fffffff, 60000, 60000}, 10), idx({5}, 5)).says("truncated"));
  write_gzip(images, idx({500, 4, 6}, 12000));
  Bytes packed = read_bytes(images);
  packed.resize(packed.size() / 2);
  CHECK(opened(packed, idx({500}, 500)).exit == Exit::bad_data);
  write_bytes(images, idx({5, 4, 6}, 120));
  fs::remove(labels);
  CHECK(opening(folder.path.string(), "train").exit == Exit::no_input);
}

TEST_CASE("pack: shards give back what went in, the same each time") {
  TemporaryFolder folder;
  MemoryDataset data = small_dataset(25);
  data.images[3] = golden_images()["rgb.png"].bytes;
  data.images[4] = golden_images()["cmyk.jpg"].bytes;
  PackOptions options;
  options.samples_per_shard = 10;
  int64_t seen = 0;
  options.progress = [&](int64_t done) { seen = done; };
  const Packed packed = pack(data, folder / "out/train", options);
  CHECK(packed.samples == 25);
  CHECK(packed.shards == 3);
  CHECK(seen == 25);
  const auto back = open_dataset(folder / "out", "train");
  REQUIRE(back->size() == 25);
  CHECK(back->classes() == data.classes());
  Bytes bytes;
  for (int i = 0; i < 25; i++) {
    back->read(i, bytes);
    CHECK(bytes == data.images[i]);
    CHECK(back->label(i) == data.label(i));
  }
  pack(data, folder / "again/", options);
  for (const char* name : {"000000.tar", "000002.tar", "classes.txt"}) {
    CHECK(read_bytes(folder.path / "out/train" / name) == read_bytes(folder.path / "again" / name));
  }
  CHECK(list_folder(folder.path.string()) == std::vector<std::string>{"again", "out"});
}

TEST_CASE("pack: raw pixels become grayscale JPEGs") {
  TemporaryFolder folder;
  write_bytes(folder / "train-images-idx3-ubyte", idx({7, 28, 28}, 7 * 784));
  write_bytes(folder / "train-labels-idx1-ubyte", idx({7}, 7));
  const auto raw = open_dataset(folder.path.string(), "train");
  pack(*raw, folder / "out");
  const auto packed = open_dataset(folder / "out", "");
  Bytes bytes;
  packed->read(6, bytes);
  CHECK(image_format(bytes) == ImageFormat::jpeg);
  CHECK(packed->label(6) == raw->label(6));
  CHECK(verify(*packed, 2).damaged.empty());
}

TEST_CASE("pack: what cannot be written says why and leaves nothing behind") {
  TemporaryFolder folder;
  const MemoryDataset data = small_dataset(3);
  write_text(folder.path / "full/keep.txt", "mine");
  CHECK(outcome([&] { pack(data, folder / "full"); }).exit == Exit::cannot_create);
  CHECK(outcome([&] { pack(data, folder / "full/keep.txt"); }).exit == Exit::cannot_create);
  CHECK(outcome([&] { pack(data, folder / "full/keep.txt/below"); }).exit == Exit::cannot_create);
  CHECK(list_folder(folder / "full") == std::vector<std::string>{"keep.txt"});

  struct Failing : MemoryDataset {
    using MemoryDataset::MemoryDataset;
    void read(int64_t i, Bytes& out) const override {
      if (i == 2) fail(Exit::io, "the disk is gone");
      MemoryDataset::read(i, out);
    }
  };
  CHECK(outcome([&] { pack(Failing(data.images), folder / "out"); }).says("the disk is gone"));
  CHECK(list_folder(folder.path.string()) == std::vector<std::string>{"full"});

  // A run that was killed leaves its .part folder; the next one starts over.
  write_text(folder.path / "out.part/000000.tar", "half");
  pack(data, folder / "out");
  CHECK(open_dataset(folder / "out", "")->size() == 3);
  CHECK(list_folder(folder.path.string()) == std::vector<std::string>{"full", "out"});
}

TEST_CASE("pack: a full disk is an error of its own") {
  CHECK(outcome([] {
          OutputFile file("/dev/full");
          file.write(Bytes(100));
          file.close();
        }).exit == Exit::io);
}

TEST_CASE("verify: lists exactly the damaged images, whatever the number of threads") {
  MemoryDataset data = small_dataset(200);
  data.images[0].clear();
  data.images[77].resize(data.images[77].size() / 2);
  data.images[199] = Bytes(100, 'x');
  for (const int threads : {1, 3}) {
    const Verification result = verify(data, threads);
    CHECK(result.images == 200);
    REQUIRE(result.damaged.size() == 3);
    CHECK(result.damaged[0].sample == 0);
    CHECK(result.damaged[1].name == "memory[77]");
    CHECK(result.damaged[2].reason.find("neither JPEG nor PNG") != std::string::npos);
  }
}
