// Regions and repacked files: the same pixels as the whole picture, at less cost.
#include "make_jpeg.h"

#include "data/jpeg.h"
#include "data/repack.h"
#include "data/restart_index.h"
#include "engine/random.h"

namespace {

Image whole(Decoder& decoder, std::span<const uint8_t> bytes, int channels) {
  const Size size = decoder.open(bytes);
  Image image;
  decoder.read({0, 0, size.height, size.width}, channels, image);
  return image;
}

Box draw_box(RandomSequence& draw, int height, int width) {
  Box box;
  box.height = 1 + int(draw.below(uint32_t(draw.chance(0.2) ? 2 : height)));
  box.width = 1 + int(draw.below(uint32_t(draw.chance(0.2) ? 2 : width)));
  box.height = std::min(box.height, height), box.width = std::min(box.width, width);
  box.top = int(draw.below(uint32_t(height - box.height + 1)));
  box.left = int(draw.below(uint32_t(width - box.width + 1)));
  return box;
}

// Bytes of the region that differ from a cut out of the whole.
int64_t differences(Decoder& decoder, std::span<const uint8_t> bytes, const Image& all, const Box& box) {
  Image part;
  decoder.open(bytes);
  decoder.read(box, all.channels, part);
  int64_t count = 0;
  const int row = box.width * all.channels;
  for (int y = 0; y < box.height; y++) {
    const uint8_t* expected = &all.pixels[(size_t(box.top + y) * all.width + box.left) * all.channels];
    for (int x = 0; x < row; x++) count += expected[x] != part.pixels[size_t(y) * row + x];
  }
  return count;
}

constexpr std::array<std::array<int, 2>, 8> sizes = {{{61, 83}, {96, 128}, {1, 1}, {17, 200}, {131, 7}, {9, 5}, {30, 18}, {20, 33}}};

}  // namespace

TEST_CASE("decode: a region of any JPEG is the same as a cut from the whole") {
  Decoder decoder;
  RandomSequence draw(RandomStream(1, "regions"), 0, 0);
  for (const JpegSpec& kind : jpeg_kinds()) {
    CAPTURE(kind.name);
    for (const auto [height, width] : sizes) {
      const Bytes jpeg = make_jpeg(kind, height, width);
      for (const int channels : {1, 3}) {
        const Image all = whole(decoder, jpeg, channels);
        for (int i = 0; i < 8; i++) {
          const Box box = draw_box(draw, height, width);
          CHECK_MESSAGE(differences(decoder, jpeg, all, box) == 0, height, " x ", width, ", ", box.height, " x ", box.width, " at ", box.top,
                        ", ", box.left, ", ", channels, " channels");
        }
      }
    }
  }
}

TEST_CASE("decode: the pixels of any JPEG are libjpeg's") {
  for (const JpegSpec& kind : jpeg_kinds()) {
    CAPTURE(kind.name);
    for (const auto [height, width] : sizes)
      for (const int quality : {20, 90, 100}) {
        JpegSpec spec = kind;
        spec.quality = quality;
        const Bytes jpeg = make_jpeg(spec, height, width);
        for (const int channels : {1, 3}) {
          Bytes ours(size_t(height) * width * channels), expected(ours.size());
          JpegReader reader;
          reader.open(jpeg);
          reader.read({0, 0, height, width}, channels, ours.data());
          reader.open(jpeg);
          reader.read_by_libjpeg({0, 0, height, width}, channels, expected.data());
          CHECK_MESSAGE(ours == expected, height, " x ", width, ", ", channels, " channels, quality ", quality);
        }
      }
  }
}

TEST_CASE("repack: any region of any JPEG has the pixels of the original") {
  Decoder decoder;
  RandomSequence draw(RandomStream(1, "repack"), 0, 0);
  for (const JpegSpec& kind : jpeg_kinds()) {
    CAPTURE(kind.name);
    for (const auto [height, width] : sizes) {
      const Bytes jpeg = make_jpeg(kind, height, width);
      for (const int interval : {0, 1, 3}) {
        const auto repacked = repack_jpeg(jpeg, interval);
        REQUIRE(bool(repacked) == (kind.components != 4));
        if (!repacked) continue;
        RestartIndex index;
        REQUIRE(read_restart_index(*repacked, index));
        CHECK(picture_is_intact(*repacked, index));
        for (const int channels : {1, 3}) {
          const Image all = whole(decoder, jpeg, channels);
          CHECK(differences(decoder, *repacked, all, {0, 0, height, width}) == 0);
          for (int i = 0; i < 4; i++) {
            const Box box = draw_box(draw, height, width);
            CHECK_MESSAGE(differences(decoder, *repacked, all, box) == 0, height, " x ", width, ", ", box.height, " x ", box.width, " at ",
                          box.top, ", ", box.left, ", ", channels, " channels, interval ", interval);
          }
        }
      }
    }
  }
}

// A sanitizer build makes this a real test of memory.
TEST_CASE("repack: a damaged index is refused, a damaged picture never reads beyond its file") {
  const Bytes good = *repack_jpeg(make_jpeg({.name = "4:2:0", .sampling = {{2, 2}, {1, 1}, {1, 1}}}, 96, 128), 4);
  RestartIndex index;
  REQUIRE(read_restart_index(good, index));
  Decoder decoder;
  RandomSequence draw(RandomStream(1, "damage"), 0, 0);
  const auto region = [&](std::span<const uint8_t> bytes) {
    return outcome([&] {
      Image part;
      const Size size = decoder.open(bytes);
      decoder.read(draw_box(draw, size.height, size.width), 3, part);
    });
  };
  for (size_t i = index.segment_begin + 4; i < index.header_end; i += 3) {
    Bytes bad = good;
    bad[i] ^= uint8_t(1 << draw.below(8));
    const Outcome result = region(bad);
    // In the name of the segment: it is no index any more.
    CHECK_MESSAGE((result.exit == Exit::bad_data || i < index.segment_begin + 22), "byte ", i);
  }
  for (size_t i = index.header_end; i < good.size(); i += 5) {
    Bytes bad = good;
    bad[i] ^= uint8_t(1 << draw.below(8));
    CHECK(read_restart_index(bad, index));
    CHECK(!picture_is_intact(bad, index));
    const Outcome result = region(bad);
    CHECK((result.exit == Exit::ok || result.exit == Exit::bad_data));
  }
  for (size_t length = 0; length < good.size(); length += 11) CHECK(region(std::span(good).first(length)).exit == Exit::bad_data);
}

TEST_CASE("decode: the turn that EXIF asks for is left out, as torchvision leaves it out") {
  Decoder decoder;
  JpegSpec spec;
  const Bytes plain = make_jpeg(spec, 20, 40);
  spec.exif = true;
  const Bytes turned = make_jpeg(spec, 20, 40);
  CHECK(turned.size() > plain.size());
  CHECK(whole(decoder, turned, 3).pixels == whole(decoder, plain, 3).pixels);
}

TEST_CASE("decode: what libjpeg lacks support for is decoded all the same, where that is safe") {
  const std::vector<std::vector<int>> levels = {{-60, -20, 0, 33}, {7, 60, -5, 12}};
  const Bytes good = twelve_blocks(levels);
  Decoder decoder;
  const Box box{3, 5, 10, 20};
  for (const int channels : {1, 3}) {
    Image part;
    const Size size = decoder.open(good);
    CHECK(size.height == 16);
    CHECK(size.width == 32);
    decoder.read(box, channels, part);
    for (int y = 0; y < box.height; y++)
      for (int x = 0; x < box.width; x++)
        for (int c = 0; c < channels; c++) {
          const int level = 128 + levels[size_t((box.top + y) / 8)][size_t((box.left + x) / 8)];
          CHECK(std::abs(part.pixels[size_t((y * box.width + x) * channels + c)] - level) <= 1);   // stb_image rounds in its own way
        }
  }
  const auto refused = [&](auto&& change) {
    Bytes bad = good;
    change(bad);
    return outcome([&] { whole(decoder, bad, 3); }).exit == Exit::bad_data;
  };
  for (size_t length = 2; length < good.size(); length += 3) CHECK(refused([&](Bytes& b) { b.resize(length); }));
  const size_t frame = 2 + 69;
  CHECK(refused([&](Bytes& b) { b[frame + 1] = 0xC2; }));                         // progressive
  CHECK(refused([&](Bytes& b) { b[frame + 11 + 3] = 0x41; }));                    // sampled differently
  CHECK(refused([&](Bytes& b) { b.insert(b.end() - 2, b.begin() + long(frame), b.end() - 2); }));  // a second frame and scan
}
