// The cached index: used while nothing has changed, and never a moment longer.
#include "helpers.h"

#include "data/sources.h"

namespace {

// As if it had been left alone for an hour: what changed just now is not kept.
void settle(const fs::path& path) {
  const auto then = fs::last_write_time(path) - std::chrono::hours(1);
  if (fs::is_directory(path))
    for (const auto& entry : fs::recursive_directory_iterator(path)) fs::last_write_time(entry.path(), then);
  fs::last_write_time(path, then);
}

std::vector<std::string> names_in(const Dataset& data, const fs::path& root) {
  std::vector<std::string> names;
  for (int64_t i = 0; i < data.size(); i++) names.push_back(str(data.label(i), ' ', fs::relative(data.name(i), root).string()));
  return names;
}

struct Tree {
  TemporaryFolder folder;
  fs::path root = folder.path / "train";
  IndexCache cache{folder / "cache", 1};
  Tree() {
    for (const char* name : {"cat/1.jpg", "dog/1.jpg", "dog/2.jpg", "dog/deep/3.png"}) write_bytes(root / name, small_jpeg(1));
    settle(root);
  }
  std::vector<std::string> names(const IndexCache& from) const { return names_in(*open_image_folder(root.string(), from), root); }
  fs::path file() const {
    REQUIRE(fs::exists(cache.folder));
    return fs::directory_iterator(cache.folder)->path();
  }
};

const std::vector<std::string> whole = {"0 cat/1.jpg", "1 dog/1.jpg", "1 dog/2.jpg", "1 dog/deep/3.png"};

}  // namespace

TEST_CASE("index: a listing is remembered, and made anew when a folder changed") {
  Tree tree;
  CHECK(tree.names({}) == whole);
  CHECK(!fs::exists(tree.cache.folder));
  CHECK(tree.names(tree.cache) == whole);
  CHECK(tree.names(tree.cache) == whole);
  // A change that no stamp tells of shows that the folders were not listed again.
  const auto before = fs::last_write_time(tree.root / "dog");
  fs::rename(tree.root / "dog/2.jpg", tree.root / "dog/8.jpg");
  fs::last_write_time(tree.root / "dog", before);
  CHECK(tree.names(tree.cache) == whole);
  CHECK(tree.names({}) != whole);

  for (const char* added : {"dog/0.jpg", "dog/deep/4.jpg", "ant/1.jpg"}) {
    settle(tree.root);
    const std::vector<std::string> listed = tree.names(tree.cache);
    write_bytes(tree.root / added, small_jpeg(1));
    CHECK(tree.names(tree.cache).size() == listed.size() + 1);
    CHECK(tree.names(tree.cache) == tree.names({}));
  }
  // Another folder under the old name and with the old time.
  settle(tree.root);
  const auto time = fs::last_write_time(tree.root / "dog");
  CHECK(tree.names(tree.cache) == tree.names({}));
  fs::rename(tree.root / "dog", tree.folder.path / "old");
  write_bytes(tree.root / "dog/only.jpg", small_jpeg(1));
  fs::last_write_time(tree.root / "dog", time);
  settle(tree.root);
  CHECK(tree.names(tree.cache) == tree.names({}));
}

TEST_CASE("index: what changed just now, and what is small, is not remembered") {
  Tree tree;
  CHECK(tree.names({tree.cache.folder, 5}) == whole);
  CHECK(!fs::exists(tree.cache.folder));
  write_bytes(tree.root / "dog/new.jpg", small_jpeg(1));
  CHECK(tree.names(tree.cache).size() == 5);
  CHECK(!fs::exists(tree.cache.folder));
}

TEST_CASE("index: a damaged cache, or one that cannot be written, costs nothing but time") {
  Tree tree;
  tree.names(tree.cache);
  const fs::path file = tree.file();
  const Bytes good = read_bytes(file);
  for (size_t at = 0; at < good.size(); at++) {
    Bytes bad = good;
    bad[at] ^= 0x41;
    write_bytes(file, bad);
    REQUIRE(tree.names(tree.cache) == whole);
    CHECK(read_bytes(file) == good);   // made anew
  }
  for (size_t length = 0; length < good.size(); length += 7) {
    write_bytes(file, std::span(good).first(length));
    REQUIRE(tree.names(tree.cache) == whole);
  }
  write_text(tree.folder.path / "a file", "");
  CHECK(tree.names({tree.folder / "a file/cache", 1}) == whole);
}

TEST_CASE("index: shards are walked once, until one of them changes") {
  TemporaryFolder folder;
  const IndexCache cache{folder / "cache", 1};
  const std::string file = folder / "s.tar";
  write_tar(file, two_samples());
  settle(file);
  const auto time = fs::last_write_time(file);
  const auto open = [&] { return outcome([&] { open_tar_shards({file}, nullptr, cache); }); };
  CHECK(open().exit == Exit::ok);
  Bytes bytes = read_bytes(file);
  bytes[3] ^= 1;   // in the first header, which is not read again
  write_bytes(file, bytes);
  fs::last_write_time(file, time);
  CHECK(open().exit == Exit::ok);
  CHECK(open_tar_shards({file}, nullptr, cache)->label(0) == 2);
  std::vector<DamagedImage> damaged;
  open_tar_shards({file}, &damaged, cache);   // this one looks, whatever is remembered
  CHECK(damaged.size() == 1);
  fs::last_write_time(file, time + std::chrono::seconds(1));
  CHECK(open().exit == Exit::bad_data);
  bytes.resize(bytes.size() - 2048);
  write_bytes(file, bytes);
  fs::last_write_time(file, time);
  CHECK(open().exit == Exit::bad_data);
}
