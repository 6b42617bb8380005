// Datasets: folders, shards and IDX files; and every way they can be wrong.
#include "helpers.h"

TEST_CASE("folder: classes and files in torchvision's order") {
  TemporaryFolder folder;
  const fs::path train = folder.path / "train";
  for (const char* name :
       {"dog/2.jpg", "dog/10.JPEG", "Cat/x.png", "dog/deep/0.jpg", "dog/notes.txt", "dog/a.deep/1.jpg"}) {
    write_bytes(train / name, small_jpeg(int(std::string(name).size())));
  }
  write_text(train / "labels.csv", "not a class");
  const auto data = open_dataset(folder.path.string(), "train");
  CHECK(data->classes() == std::vector<std::string>{"Cat", "dog"});
  std::vector<std::string> names;
  for (int64_t i = 0; i < data->size(); i++) names.push_back(fs::relative(data->name(i), train).string());
  CHECK(names ==
        std::vector<std::string>{"Cat/x.png", "dog/10.JPEG", "dog/2.jpg", "dog/a.deep/1.jpg", "dog/deep/0.jpg"});
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
  write_tar(folder / "train/000001.tar", {{"__meta__.json", {}},
                                          {"./d.e/c.JPG", small_jpeg(3)},
                                          {"./d.e/c.cls", text("1")},
                                          {"./d.e/c.txt", text("a caption")},
                                          {"README", text("x")}});
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
  // It would evaluate on the training set.
  CHECK(opening(folder / "x-train-{08..10}.tar", "val").exit == Exit::config);
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
  CHECK(opened({{"a.jpg", {}}, {"a.cls", text("1")}, {"b.jpg", {}}, {"b.cls", text("1")}, {"a.jpg", {}}, {"a.cls", text("1")}}).says("comes twice"));
  for (const char* label : {"", "x", "-1", "1x", "99999999999999999999", "1000000", "1 2"}) {
    CHECK_MESSAGE(opened({{"a.jpg", {}}, {"a.cls", text(label)}}).says("class number"), label);
  }
}

TEST_CASE("shards: a label may stand in .json, and must be the one in .cls") {
  TemporaryFolder folder;
  const auto opened = [&](const std::vector<Member>& members) {
    write_tar(folder / "s.tar", members);
    return opening(folder / "s.tar", "");
  };
  write_tar(folder / "s.tar", {{"a.jpg", small_jpeg(1)}, {"a.json", text("{\"label\": 3, \"caption\": \"x\"}")},
                               {"b.json", text("{\"cls\":7}")}, {"b.jpg", small_jpeg(2)},
                               {"c.json", text("{}")}, {"c.cls", text("2")}, {"c.jpg", small_jpeg(3)}});
  const auto data = open_dataset(folder / "s.tar", "");
  REQUIRE(data->size() == 3);
  CHECK(std::vector<int>{data->label(0), data->label(1), data->label(2)} == std::vector<int>{3, 7, 2});
  for (const char* json : {"", "{", "[1]", "{\"label\":\"3\"}", "{\"label\":-1}", "{\"label\":3.5}", "{\"label\":1000000}"}) {
    CHECK_MESSAGE(opened({{"a.jpg", {}}, {"a.json", text(json)}}).says("\"label\" is a class number"), json);
  }
  CHECK(opened({{"a.jpg", {}}, {"a.json", text("{}")}}).says("no label"));
  CHECK(opened({{"a.jpg", {}}, {"a.json", text("{\"label\":1}")}, {"a.cls", text("2")}}).says("the label 2 in .cls and 1 in .json"));
  CHECK(opened({{"a.jpg", {}}, {"a.json", text("{}")}, {"a.json", text("{}")}, {"a.cls", text("2")}}).says("two labels"));
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
