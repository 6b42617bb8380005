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

// The file with an index of these lengths in place of its own, its checksum right, and this coded picture.
Bytes with_index(const Bytes& jpeg, const RestartIndex& index, const std::vector<size_t>& lengths, const Bytes& coded) {
  constexpr size_t field = 4 + 18;   // of the header's checksum in the segment
  Bytes out(jpeg.begin(), jpeg.begin() + long(index.segment_begin + field + 4));
  const auto put = [&](size_t at, uint32_t value) {
    for (const int shift : {24, 16, 8, 0}) out[at++] = uint8_t(value >> shift);
  };
  out.resize(out.size() + 4);
  put(out.size() - 4, uint32_t(crc32(0, coded.data(), unsigned(coded.size()))));
  for (size_t length : lengths) {
    for (; length > 0x7F; length >>= 7) out.push_back(uint8_t(length | 0x80));
    out.push_back(uint8_t(length));
  }
  const size_t segment = out.size() - index.segment_begin - 2;
  out[index.segment_begin + 2] = uint8_t(segment >> 8), out[index.segment_begin + 3] = uint8_t(segment);
  out.insert(out.end(), jpeg.begin() + long(index.segment_end), jpeg.begin() + long(index.header_end));
  const size_t before = index.segment_begin + field;
  const uLong first = crc32(0, out.data(), unsigned(before));
  put(before, uint32_t(crc32(first, out.data() + before + 4, unsigned(out.size() - before - 4))));
  out.insert(out.end(), coded.begin(), coded.end());
  return out;
}

TEST_CASE("repack: an index that lies is refused, though its checksums are right") {
  const Bytes good = *repack_jpeg(make_jpeg({.name = "4:2:0", .sampling = {{2, 2}, {1, 1}, {1, 1}}}, 96, 256), 4);
  RestartIndex index;
  REQUIRE(read_restart_index(good, index));
  const size_t tiles = index.begin.size() - 1;
  REQUIRE(tiles == 24);
  const Bytes coded(good.begin() + long(index.header_end), good.end());
  std::vector<size_t> lengths;
  for (size_t i = 0; i < tiles; i++) lengths.push_back(index.begin[i + 1] - index.begin[i] - 2);
  Decoder decoder;
  const auto opened = [&](const std::vector<size_t>& lengths, const Bytes& coded) {
    const Bytes file = with_index(good, index, lengths, coded);
    RestartIndex forged;
    CHECK(read_restart_index(file, forged));   // as far as the checksum tells
    CHECK(picture_is_intact(file, forged));
    return outcome([&] {
      const Size size = decoder.open(file);
      Image part;
      for (int top = 0; top < 96; top += 16)
        for (int left = 0; left < 256; left += 64) decoder.read({top, left, 16, std::min(64, size.width - left)}, 3, part), decoder.open(file);
    });
  };
  CHECK(with_index(good, index, lengths, coded) == good);
  CHECK(opened(lengths, coded).exit == Exit::ok);
  const auto refused = [&](const std::vector<size_t>& lengths, const Bytes& coded) {
    const Outcome o = opened(lengths, coded);
    CHECK(o.exit == Exit::bad_data);
    CHECK(o.says("restart index is damaged: the intervals lie elsewhere"));
  };

  for (size_t i = 0; i + 1 < tiles; i++) {
    std::vector<size_t> moved = lengths;
    moved[i]++, moved[i + 1]--;
    refused(moved, coded);
    moved = lengths;
    std::swap(moved[i], moved[i + 1]);
    if (moved != lengths) refused(moved, coded);
  }
  // Two intervals as one, and one less behind.
  std::vector<size_t> joined = lengths;
  joined[3] += 2 + joined[4];
  joined.erase(joined.begin() + 4);
  joined.push_back(0);
  Bytes longer = coded;
  longer.insert(longer.end(), {0xFF, 0xD9});
  refused(joined, longer);

  // The first eight intervals again in front of all: the index may pass over as many where it likes, and each marker still has its number.
  const auto eight = coded.begin() + long(index.begin[8] - index.begin[0]);
  Bytes more(coded.begin(), eight);
  more.insert(more.end(), coded.begin(), coded.end());
  for (const size_t at : {size_t(0), size_t(5), size_t(8), size_t(23)}) {
    std::vector<size_t> all(lengths.begin(), lengths.begin() + 8), passing;
    all.insert(all.end(), lengths.begin(), lengths.end());
    for (size_t i = 0; i < all.size(); i++)
      if (i > at && i <= at + 8) passing.back() += 2 + all[i];
      else passing.push_back(all[i]);
    REQUIRE(passing.size() == tiles);
    refused(passing, more);
  }
  // Marks that are none of the tiles': a second picture behind the end, fill bytes, an end in the middle.
  Bytes filled = coded;
  filled.insert(filled.begin() + long(lengths[0]), 0xFF);
  std::vector<size_t> with_fill = lengths;
  with_fill[0]++;
  refused(with_fill, filled);
  Bytes ended = coded;
  ended[lengths[0] + 1] = 0xD9;
  refused(lengths, ended);
  for (const uint8_t last : {0x2A, 0xFF}) {   // the last interval goes on where its mark should be
    Bytes endless = coded;
    endless[endless.size() - 2] = 0x2A, endless[endless.size() - 1] = last;
    refused(lengths, endless);
  }
  Bytes behind = coded;
  behind.insert(behind.end(), coded.begin(), coded.end());
  CHECK(opened(lengths, behind).exit == Exit::ok);   // as behind the end of any JPEG
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
