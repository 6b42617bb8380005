// Tar files: what other programs write is read; what is damaged, cut or unsafe is refused by name.
#include "helpers.h"

#include "engine/random.h"

namespace {

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
    CHECK_MESSAGE(changed([&](uint8_t* h) { std::memcpy(h, name, std::strlen(name) + 1); }).says("leaves the folder"),
                  name);
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
  // Needs the long-name form of each format.
  const std::string deep = std::string(60, 'b') + "/" + std::string(60, 'c');
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
