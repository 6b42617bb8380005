// image_targets.cpp: pictures: every way to the same pixels gives the same pixels.
#define DOCTEST_CONFIG_DISABLE
#include "tests/data/make_jpeg.h"

#include "data/jpeg.h"
#include "data/plain_jpeg.h"
#include "data/png.h"
#include "data/repack.h"
#include "data/restart_index.h"
#include "engine/random.h"
#include "target.h"

namespace {

constexpr int64_t most_pixels = 1 << 20;   // as OSS-Fuzz has it: larger pictures only cost time

// Draws from the input itself, so that it alone decides what is done with it.
RandomSequence draws_of(Input input) {
  return {RandomStream(hash_name({reinterpret_cast<const char*>(input.data()), input.size()}), "fuzz region"), 0, 0};
}

Box draw_box(RandomSequence& draw, const Size& size) {
  Box box;
  box.height = 1 + int(draw.below(uint32_t(size.height))), box.width = 1 + int(draw.below(uint32_t(size.width)));
  box.top = int(draw.below(uint32_t(size.height - box.height + 1))), box.left = int(draw.below(uint32_t(size.width - box.width + 1)));
  return box;
}

// Through decode.h, which knows what is too large.
bool opens(Decoder& decoder, Input input, Size& size) {
  return !refuses([&] { size = decoder.open(input); }) && int64_t(size.height) * size.width <= most_pixels;
}

void compare(const Bytes& whole, const Size& size, const Box& box, int channels, const Bytes& part, const char* what) {
  const size_t row = size_t(box.width) * channels;
  for (int y = 0; y < box.height; y++)
    if (std::memcmp(&whole[(size_t(box.top + y) * size.width + box.left) * channels], &part[y * row], row) != 0)
      throw Finding(str(what, ": other pixels in row ", y, " of the box ", box.height, " x ", box.width, " at ", box.top, ", ", box.left, " of ",
                        size.height, " x ", size.width));
}

// One decoder after another input than this one: it must still read a good picture.
void check_unharmed(JpegReader& reader) {
  static const Bytes good = make_jpeg({.name = "4:2:0", .sampling = {{2, 2}, {1, 1}, {1, 1}}}, 16, 24);
  static const Bytes expected = [] {
    Bytes pixels(16 * 24 * 3);
    JpegReader fresh;
    fresh.open(good);
    fresh.read_by_libjpeg({0, 0, 16, 24}, 3, pixels.data());
    return pixels;
  }();
  Bytes pixels(expected.size());
  if (refuses([&] { reader.open(good), reader.read({0, 0, 16, 24}, 3, pixels.data()); }) || pixels != expected)
    throw Finding("the reader does not read a good picture any more");
}

// Our own reader of the coded data against libjpeg: the whole and a region, by both.
void jpeg(Input input) {
  Decoder decoder;
  Size size;
  if (image_format(input) != ImageFormat::jpeg || !opens(decoder, input, size)) return;
  RandomSequence draw = draws_of(input);
  const int channels = draw.chance(0.3) ? 1 : 3;
  const Box all{0, 0, size.height, size.width}, box = draw_box(draw, size);
  JpegReader reader;
  const auto read = [&](const Box& region, bool by_libjpeg, Bytes& out) {
    out.resize(size_t(region.height) * region.width * channels);
    return !refuses([&] {
      reader.open(input);
      if (by_libjpeg) reader.read_by_libjpeg(region, channels, out.data());
      else reader.read(region, channels, out.data());
    });
  };
  Bytes ours, libjpegs, part;
  const bool we = read(all, false, ours), they = read(all, true, libjpegs);
  if (we != they) throw Finding(we ? "we read what libjpeg refuses" : "we refuse what libjpeg reads");
  if (we) compare(libjpegs, size, all, channels, ours, "the whole");
  for (const bool by_libjpeg : {false, true}) {
    const bool read_part = read(box, by_libjpeg, part);
    if (we && !read_part) throw Finding(by_libjpeg ? "libjpeg refuses a region of a good picture" : "a region of a good picture is refused");
    if (we) compare(ours, size, box, channels, part, by_libjpeg ? "a region by libjpeg" : "a region");
  }
  check_unharmed(reader);
}

// What a dataset hands to a decoder.
void decode(Input input) {
  Decoder decoder;
  Size size;
  if (!opens(decoder, input, size)) return;
  RandomSequence draw = draws_of(input);
  const int channels = draw.chance(0.3) ? 1 : 3;
  Image whole, part;
  const bool good = !refuses([&] { decoder.read({0, 0, size.height, size.width}, channels, whole); });
  const Box box = draw_box(draw, size);
  decoder.open(input);
  const bool good_part = !refuses([&] { decoder.read(box, channels, part); });
  if (good && !good_part) throw Finding("a region of a good picture is refused");
  if (good) compare(whole.pixels, size, box, channels, part.pixels, "a region");
}

void png(Input input) {
  if (image_format(input) == ImageFormat::png) decode(input);
}

// stb_image on whatever plain_jpeg.h lets through, whether or not libjpeg could read it.
void stb(Input input) {
  Decoder decoder;
  Size size;
  if (image_format(input) == ImageFormat::jpeg && opens(decoder, input, size)) refuses([&] { read_plain_jpeg(input, size); });
}

void repack(Input input) {
  Decoder decoder;
  Size size;
  if (image_format(input) != ImageFormat::jpeg || !opens(decoder, input, size)) return;
  RandomSequence draw = draws_of(input);
  std::optional<Bytes> repacked;
  if (refuses([&] { repacked = repack_jpeg(input, int(draw.below(5))); }) || !repacked) return;
  RestartIndex index;
  if (!read_restart_index(*repacked, index) || !picture_is_intact(*repacked, index)) throw Finding("the index of a repacked file is damaged");
  if (!index_is_true(*repacked, index)) throw Finding("the index of a repacked file lies");
  Image from, to;
  const Box box = draw_box(draw, size);
  decoder.open(input);
  decoder.read(box, 3, from);
  decoder.open(*repacked);
  decoder.read(box, 3, to);
  if (from.pixels != to.pixels) throw Finding("a repacked file has other pixels");
}

std::vector<Bytes> jpegs() {
  std::vector<Bytes> all;
  for (const JpegSpec& kind : jpeg_kinds())
    for (const std::array<int, 2>& side : {std::array{9, 13}, std::array{24, 40}}) {
      JpegSpec spec = kind;
      spec.restart_interval = std::min(spec.restart_interval, 2);
      all.push_back(make_jpeg(spec, side[0], side[1]));
      if (spec.components == 4 || side[1] < 20) continue;
      if (const auto repacked = repack_jpeg(all.back(), 2)) all.push_back(*repacked);
    }
  return all;
}

std::vector<Bytes> plain_jpegs() {
  std::vector<Bytes> all = {twelve_blocks({{-60, -20, 0, 33}, {7, 60, -5, 12}}), twelve_blocks({{-60, -20}, {0, 33}})};
  all.push_back(make_jpeg({.name = "gray", .components = 1}, 20, 33));
  all.push_back(make_jpeg({.name = "4:4:4, restarts", .restart_interval = 2}, 20, 33));
  return all;
}

std::vector<Bytes> pngs() {
  std::vector<Bytes> all;
  for (const auto& [name, image] : golden_images())
    if (image_format(image.bytes) == ImageFormat::png) all.push_back(image.bytes);
  for (const int channels : {1, 2, 3, 4}) all.push_back(encode_png(picture(7, 9, channels)));
  return all;
}

std::vector<Bytes> pictures() {
  std::vector<Bytes> all = pngs();
  for (const JpegSpec& kind : jpeg_kinds())
    if (!kind.one_scan_each) all.push_back(make_jpeg(kind, 17, 22));
  all.push_back(plain_jpegs().front());
  all.push_back(text("P5\n4 3\n255\nabcdefghijkl"));
  return all;
}

}  // namespace

std::vector<FuzzTarget> image_targets() {
  return {{"jpeg", FuzzTarget::jpeg, true, jpeg, jpegs()},
          {"png", FuzzTarget::png, true, png, pngs()},
          {"stb", FuzzTarget::jpeg, true, stb, plain_jpegs()},
          {"repack", FuzzTarget::jpeg, true, repack, jpegs()},
          {"decode", FuzzTarget::text, true, decode, pictures()}};
}
