// Packing and verifying: shards give back what went in, or say why they could not be written.
#include "helpers.h"

#include "data/pack.h"
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
