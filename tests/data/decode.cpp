// Decoding: Pillow's pixels, honest refusals, and no crash on anything.
#include "helpers.h"

#include "data/decode.h"

#include "engine/random.h"

namespace {

Image decode(Decoder& decoder, std::span<const uint8_t> bytes, int channels) {
  const Size size = decoder.open(bytes);
  Image image;
  decoder.read({0, 0, size.height, size.width}, channels, image);
  return image;
}

Outcome decoding(std::span<const uint8_t> bytes) {
  return outcome([&] {
    Decoder decoder;
    decode(decoder, bytes, 3);
  });
}

}  // namespace

TEST_CASE("decode: every kind of JPEG and PNG has Pillow's pixels") {
  Decoder decoder;
  for (const auto& [name, golden] : golden_images()) {
    CAPTURE(name);
    const Image rgb = decode(decoder, golden.bytes, 3), gray = decode(decoder, golden.bytes, 1);
    CHECK(rgb.height == 19);
    CHECK(rgb.width == 23);
    CHECK(fnv(rgb.pixels) == golden.rgb_hash);
    CHECK(fnv(gray.pixels) == golden.gray_hash);
    CHECK(decoder.warnings() == 0);
  }
}

TEST_CASE("decode: a region is the same as a cut from the whole") {
  Decoder decoder;
  for (const auto& [name, golden] : golden_images()) {
    CAPTURE(name);
    for (const int channels : {1, 3}) {
      const Image whole = decode(decoder, golden.bytes, channels);
      const Box box{4, 7, 11, 13};
      decoder.open(golden.bytes);
      Image part;
      decoder.read(box, channels, part);
      for (int y = 0; y < box.height; y++) {
        const auto* row = &whole.pixels[((box.top + y) * whole.width + box.left) * channels];
        CHECK(std::equal(row, row + box.width * channels, &part.pixels[y * box.width * channels]));
      }
    }
  }
}

TEST_CASE("decode: a name means nothing, the content everything") {
  TemporaryFolder folder;
  write_bytes(folder.path / "cat" / "photo.JPEG", golden_images()["rgb.png"].bytes);
  const auto dataset = open_dataset(folder.path.string(), "");
  Bytes bytes;
  dataset->read(0, bytes);
  CHECK(image_format(bytes) == ImageFormat::png);
  CHECK(decoding(bytes).exit == Exit::ok);
}

TEST_CASE("decode: damaged images are refused with a reason") {
  const auto images = golden_images();
  CHECK(decoding({}).exit == Exit::bad_data);
  CHECK(decoding({}).says("empty"));
  const Bytes garbage(500, 'x');
  CHECK(decoding(garbage).says("neither JPEG nor PNG"));
  Bytes jpeg_garbage(500, 'x');
  jpeg_garbage[0] = 0xff, jpeg_garbage[1] = 0xd8, jpeg_garbage[2] = 0xff;
  CHECK(decoding(jpeg_garbage).exit == Exit::bad_data);

  for (const auto& [name, golden] : images) {
    CAPTURE(name);
    // The last bytes of a JPEG are its end marker and padding bits of the picture; everything before must be missed.
    for (size_t length = 0; length + 4 < golden.bytes.size(); length += 7) {
      const Outcome result = decoding(std::span(golden.bytes).first(length));
      CHECK_MESSAGE(result.exit == Exit::bad_data, "cut to ", length, " of ", golden.bytes.size());
      CHECK(!result.what.empty());
    }
  }
}

TEST_CASE("decode: stray bytes between segments are harmless and counted") {
  Bytes bytes = golden_images()["rgb444.jpg"].bytes;
  const size_t first_segment = 2 + 2 + size_t(bytes[4] << 8 | bytes[5]);
  bytes.insert(bytes.begin() + long(first_segment), {0x11, 0x22, 0x33});
  Decoder decoder;
  const Image image = decode(decoder, bytes, 3);
  CHECK(decoder.warnings() == 1);
  CHECK(fnv(image.pixels) == golden_images()["rgb444.jpg"].rgb_hash);
}

TEST_CASE("decode: bombs are refused before memory is claimed") {
  const auto images = golden_images();
  Bytes jpeg = images.at("gray.jpg").bytes;
  for (size_t i = 0; i + 9 < jpeg.size(); i++) {
    if (jpeg[i] == 0xff && jpeg[i + 1] == 0xc0)
      jpeg[i + 5] = jpeg[i + 7] = 0x1f;  // 7955 x 7959: allowed, but not in so few bytes
  }
  CHECK(decoding(jpeg).says("no real picture"));
  for (size_t i = 0; i + 9 < jpeg.size(); i++) {
    if (jpeg[i] == 0xff && jpeg[i + 1] == 0xc0) jpeg[i + 5] = jpeg[i + 7] = 0xff;
  }
  CHECK(decoding(jpeg).exit == Exit::bad_data);

  Bytes png = images.at("rgb.png").bytes;
  png[16] = png[20] = 0x7f;
  CHECK(decoding(png).says("more than the limit"));
  png[16] = png[20] = 0xff;
  CHECK(decoding(png).says("more than the limit"));

  const std::string pgm = "P5\n60000 60000\n255\n";
  CHECK(decoding(Bytes(pgm.begin(), pgm.end())).says("more than the limit"));
  const std::string cut = "P5\n28 28\n255\nabc";
  CHECK(decoding(Bytes(cut.begin(), cut.end())).exit == Exit::bad_data);
}

TEST_CASE("decode: a progressive file of very many scans is refused") {
  Bytes bytes = golden_images()["progressive.jpg"].bytes;
  // Repeats the last scan, from its header to the end marker.
  size_t scan = 0;
  for (size_t i = 0; i + 1 < bytes.size(); i++) {
    if (bytes[i] == 0xff && bytes[i + 1] == 0xda) scan = i;
  }
  const Bytes last(bytes.begin() + long(scan), bytes.end() - 2);
  bytes.resize(bytes.size() - 2);
  for (int i = 0; i < 200; i++) bytes.insert(bytes.end(), last.begin(), last.end());
  bytes.insert(bytes.end(), {0xff, 0xd9});
  CHECK(decoding(bytes).says("scans"));
}

TEST_CASE("decode: a PNG with a flipped bit is refused") {
  const Bytes good = golden_images()["rgb.png"].bytes;
  for (size_t i = 8; i < good.size(); i += 5) {
    Bytes bad = good;
    bad[i] ^= 4;
    CHECK_MESSAGE(decoding(bad).exit == Exit::bad_data, "byte ", i);
  }
}

// A sanitizer build makes this a real test of memory.
TEST_CASE("decode: thousands of mutated images end in pixels or in a reason") {
  Decoder decoder;  // the same one throughout, as a worker has it
  RandomSequence draw(RandomStream(7, "mutate"), 0, 0);
  int refused = 0, decoded = 0;
  for (int round = 0; round < 400; round++) {
    for (const auto& [name, golden] : golden_images()) {
      if (round >= 100 && name != "rgb420.jpg" && name != "progressive.jpg" && name != "cmyk.jpg") continue;
      Bytes bytes = golden.bytes;
      const int flips = 1 + int(draw.below(4));
      for (int i = 0; i < flips; i++) bytes[draw.below(uint32_t(bytes.size()))] = uint8_t(draw.word());
      if (draw.chance(0.2)) bytes.resize(draw.below(uint32_t(bytes.size())));
      const Outcome result = outcome([&] { decode(decoder, bytes, draw.chance(0.5) ? 1 : 3); });
      CHECK_MESSAGE((result.exit == Exit::ok || result.exit == Exit::bad_data), name, ": ", result.what);
      (result.exit == Exit::ok ? decoded : refused)++;
    }
  }
  CHECK(refused > 100);
  CHECK(decoded > 50);
  // The decoder is as good as new.
  const GoldenImage golden = golden_images()["rgb420.jpg"];
  CHECK(fnv(decode(decoder, golden.bytes, 3).pixels) == golden.rgb_hash);
}

TEST_CASE("decode: the grayscale encoder gives back nearly what went in, and the same bytes each time") {
  Bytes pixels(28 * 28);
  for (int i = 0; i < 28 * 28; i++) pixels[i] = uint8_t(128 + 100 * std::sin(i % 28 * 0.3) * std::cos(i / 28 * 0.2));
  const Bytes jpeg = encode_gray_jpeg(pixels.data(), 28, 28, 95);
  CHECK(jpeg == encode_gray_jpeg(pixels.data(), 28, 28, 95));
  CHECK(image_format(jpeg) == ImageFormat::jpeg);
  Decoder decoder;
  const Image image = decode(decoder, jpeg, 1);
  int worst = 0;
  for (int i = 0; i < 28 * 28; i++) worst = std::max(worst, std::abs(image.pixels[i] - pixels[i]));
  CHECK(worst <= 4);
}
