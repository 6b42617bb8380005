// Packing and verifying: shards give back what went in, or say why they could not be written.
#include "make_jpeg.h"

#include "data/pack.h"
#include "data/repack.h"
#include "data/restart_index.h"
#include "data/verify.h"

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
  CHECK(verify(*packed, {2}).damaged.empty());
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

TEST_CASE("pack: an interrupted run goes on where it stopped, with the same bytes at the end") {
  TemporaryFolder folder;
  struct Failing : MemoryDataset {
    using MemoryDataset::MemoryDataset;
    int64_t fails_at = 17;
    mutable std::atomic<int> reads = 0;
    void read(int64_t i, Bytes& out) const override {
      if (i == fails_at) fail(Exit::io, "the disk is gone");
      reads++;
      MemoryDataset::read(i, out);
    }
  };
  Failing data(small_dataset(25).images);
  PackOptions options;
  options.samples_per_shard = 5;
  options.restart_interval = 0;
  CHECK(outcome([&] { pack(data, folder / "out", options); }).says("the disk is gone"));
  CHECK(list_folder(folder / "out.part") ==
        std::vector<std::string>{"000000.tar", "000001.tar", "000002.tar", "000003.tar.part", "pack.json"});
  const auto first_shard = fs::last_write_time(folder / "out.part/000000.tar");

  data.fails_at = -1, data.reads = 0;
  options.threads = 3;
  const Packed packed = pack(data, folder / "out", options);
  CHECK(packed.finished_before == 3);
  CHECK(packed.samples == 25);
  CHECK(data.reads == 10);
  CHECK(fs::last_write_time(folder / "out/000000.tar") == first_shard);
  const Packed at_once = pack(data, folder / "whole", options);
  CHECK(packed.bytes == at_once.bytes);
  CHECK(list_folder(folder / "out") == list_folder(folder / "whole"));
  for (const std::string& name : list_folder(folder / "out")) CHECK(read_bytes(folder / ("out/" + name)) == read_bytes(folder / ("whole/" + name)));

  // Other options make other shards: nothing is kept.
  data.fails_at = 17;
  CHECK(outcome([&] { pack(data, folder / "third", options); }).exit == Exit::io);
  data.fails_at = -1;
  options.restart_interval = 4;
  CHECK(pack(data, folder / "third", options).finished_before == 0);
}

TEST_CASE("pack: JPEGs are repacked where they can be, all else is stored as it is, pixels stay") {
  TemporaryFolder folder;
  MemoryDataset data = small_dataset(4);
  data.images[0] = make_jpeg({.name = "progressive", .progressive = true}, 60, 80);
  data.images[1] = golden_images()["cmyk.jpg"].bytes;
  data.images[2] = golden_images()["rgb.png"].bytes;
  data.images[3].resize(data.images[3].size() / 2);
  PackOptions options;
  options.restart_interval = 0;
  CHECK(pack(data, folder / "out", options).repacked == 1);
  const auto back = open_dataset(folder / "out", "");
  Bytes bytes;
  for (const int i : {1, 2, 3}) {
    back->read(i, bytes);
    CHECK(bytes == data.images[size_t(i)]);
  }
  back->read(0, bytes);
  RestartIndex index;
  CHECK(read_restart_index(bytes, index));
  Decoder decoder;
  Image before, after;
  const Box box{10, 20, 30, 40};
  decoder.open(data.images[0]);
  decoder.read(box, 3, before);
  decoder.open(bytes);
  decoder.read(box, 3, after);
  CHECK(before.pixels == after.pixels);
}

TEST_CASE("verify: finds a flipped bit of a repacked picture wherever it lies") {
  const Bytes good = *repack_jpeg(make_jpeg({.name = "4:4:4"}, 60, 80), 0);
  RestartIndex index;
  REQUIRE(read_restart_index(good, index));
  MemoryDataset data(std::vector<Bytes>(40, good));
  for (size_t i = 1; i < 40; i++) data.images[i][index.header_end + (good.size() - index.header_end) * i / 40] ^= 1;
  CHECK(verify(data, {2}).damaged.size() == 39);
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
    const Verification result = verify(data, {threads});
    CHECK(result.images == 200);
    REQUIRE(result.damaged.size() == 3);
    CHECK(result.damaged[0].sample == 0);
    CHECK(result.damaged[1].name == "memory[77]");
    CHECK(result.damaged[2].reason.find("neither JPEG nor PNG") != std::string::npos);
  }
}

TEST_CASE("verify: a damaged shard is named, and the images in front of the damage and in other shards are looked at") {
  TemporaryFolder folder;
  MemoryDataset data = small_dataset(30);
  data.images[25].resize(data.images[25].size() / 2);
  PackOptions options;
  options.samples_per_shard = 10;
  pack(data, folder / "out", options);
  fs::resize_file(folder / "out/000001.tar", fs::file_size(folder / "out/000001.tar") / 2);
  CHECK(opening(folder / "out", "").exit == Exit::bad_data);
  std::vector<DamagedImage> shards;
  const auto rest = open_dataset(folder / "out", "", &shards);
  REQUIRE(shards.size() == 1);
  CHECK(shards[0].name == folder / "out/000001.tar");
  CHECK(rest->size() > 20);
  CHECK(rest->size() < 30);
  CHECK(verify(*rest, {2}).damaged.size() == 1);
}

TEST_CASE("verify: regions of a file and of its repack are held to the whole") {
  MemoryDataset data = small_dataset(3);
  data.images[1] = make_jpeg({.name = "4:2:0", .sampling = {{2, 2}, {1, 1}, {1, 1}}}, 100, 130);
  data.images[2] = golden_images()["rgb.png"].bytes;
  const Verification result = verify(data, {.threads = 2, .regions = 10});
  CHECK(result.regions == 50);
  CHECK(result.different == 0);
}
