// decode.cpp: chooses the reader by content, checks what the header claims, converts channels.
#include "data/decode.h"

#include <algorithm>
#include <cctype>
#include <cstring>

#include "data/jpeg.h"
#include "data/plain_jpeg.h"
#include "data/png.h"
#include "engine/check.h"

struct Decoder::State {
  JpegReader jpeg;
  ImageFormat format = ImageFormat::unknown;
  std::span<const uint8_t> bytes;
  Size size;
  size_t pgm_pixels = 0;  // offset of the first pixel
};

ImageFormat image_format(std::span<const uint8_t> bytes) {
  const auto starts = [&](std::string_view magic) {
    return bytes.size() >= magic.size() && std::memcmp(bytes.data(), magic.data(), magic.size()) == 0;
  };
  if (starts("\xFF\xD8\xFF")) return ImageFormat::jpeg;
  if (starts("\x89PNG\r\n\x1A\n")) return ImageFormat::png;
  if (starts("P5\n")) return ImageFormat::pgm;
  return ImageFormat::unknown;
}

namespace {

// "P5\nWIDTH HEIGHT\n255\n" and the pixels, as IDX datasets hand out theirs.
size_t read_pgm_header(std::span<const uint8_t> bytes, Size& size) {
  size_t at = 2;
  const auto number = [&](char end) {
    int value = 0;
    for (at++; at < bytes.size() && std::isdigit(bytes[at]) && value <= max_image_side; at++) {
      value = value * 10 + (bytes[at] - '0');
    }
    if (at >= bytes.size() || bytes[at] != uint8_t(end)) fail(Exit::bad_data, "its PGM header is damaged");
    return value;
  };
  size.width = number(' ');
  size.height = number('\n');
  if (number('\n') != 255) fail(Exit::bad_data, "a PGM must have 255 levels");
  return at + 1;
}

uint8_t luma(const uint8_t* rgb) { return uint8_t((19595 * rgb[0] + 38470 * rgb[1] + 7471 * rgb[2] + 32768) >> 16); }

// Copies a region of whole-image pixels and gives it the channels that were asked for.
void copy_region(const uint8_t* pixels, int width, int from, const Box& region, int to, uint8_t* out) {
  for (int y = 0; y < region.height; y++) {
    const uint8_t* in = pixels + (int64_t(region.top + y) * width + region.left) * from;
    for (int x = 0; x < region.width; x++, in += from, out += to) {
      if (to == 1) out[0] = from < 3 ? in[0] : luma(in);
      else for (int c = 0; c < 3; c++) out[c] = from < 3 ? in[0] : in[c];
    }
  }
}

void read_jpeg(Decoder::State& s, const Box& region, int channels, int shrink, uint8_t* out) {
  if (shrink > 1) return s.jpeg.read_by_libjpeg(region, channels, out, shrink);
  try {
    s.jpeg.read(region, channels, out);
  } catch (const Error&) {
    if (!s.jpeg.lacks_support()) throw;
    const Image whole = read_plain_jpeg(s.bytes, s.size);
    copy_region(whole.pixels.data(), whole.width, whole.channels, region, channels, out);
  }
}

}  // namespace

Decoder::Decoder() : state_(std::make_unique<State>()) {}
Decoder::~Decoder() = default;

Size Decoder::open(std::span<const uint8_t> bytes) {
  State& s = *state_;
  s.bytes = bytes;
  s.format = image_format(bytes);
  if (bytes.empty()) fail(Exit::bad_data, "the image is empty (0 bytes)");
  if (s.format == ImageFormat::unknown) fail(Exit::bad_data, "the content is neither JPEG nor PNG");
  if (s.format == ImageFormat::jpeg) s.size = s.jpeg.open(bytes);
  if (s.format == ImageFormat::png) s.size = read_png_header(bytes);
  if (s.format == ImageFormat::pgm) s.pgm_pixels = read_pgm_header(bytes, s.size);

  const int64_t pixels = int64_t(s.size.height) * s.size.width;
  const auto claim = [&] { return str("the header claims ", s.size.width, " x ", s.size.height, " pixels"); };
  if (pixels <= 0) fail(Exit::bad_data, claim());
  if (std::max(s.size.width, s.size.height) > max_image_side || pixels > max_image_pixels) {
    fail(Exit::bad_data, claim(), ", more than the limit of ", max_image_pixels);
  }
  if (s.format == ImageFormat::jpeg && pixels / max_pixels_per_byte > int64_t(bytes.size())) {
    fail(Exit::bad_data, claim(), " in ", bytes.size(), " bytes, which no real picture does");
  }
  if (s.format == ImageFormat::pgm && int64_t(bytes.size() - s.pgm_pixels) != pixels) {
    fail(Exit::bad_data, claim(), ", but ", bytes.size() - s.pgm_pixels, " follow");
  }
  return s.size;
}

void Decoder::read(const Box& region, int channels, int shrink, Image& out) {
  State& s = *state_;
  check(channels == 1 || channels == 3, "[decode] channels must be 1 or 3, got ", channels);
  check(shrink == 1 || ((shrink == 2 || shrink == 4 || shrink == 8) && can_shrink()), "[decode] this picture cannot be shrunk by ", shrink);
  const Size size{(s.size.height + shrink - 1) / shrink, (s.size.width + shrink - 1) / shrink};
  check(region.top >= 0 && region.left >= 0 && region.height > 0 && region.width > 0 &&
        region.height <= size.height - region.top && region.width <= size.width - region.left,
        "[decode] the region ", region.height, " x ", region.width, " at ", region.top, ", ", region.left,
        " must lie inside the image, ", size.height, " x ", size.width);
  out.height = region.height, out.width = region.width, out.channels = channels;
  out.pixels.resize(size_t(region.height) * region.width * channels);

  if (s.format == ImageFormat::jpeg) {
    read_jpeg(s, region, channels, shrink, out.pixels.data());
  } else if (s.format == ImageFormat::png) {
    const Image whole = read_png(s.bytes);
    copy_region(whole.pixels.data(), whole.width, whole.channels, region, channels, out.pixels.data());
  } else {
    copy_region(s.bytes.data() + s.pgm_pixels, s.size.width, 1, region, channels, out.pixels.data());
  }
}

bool Decoder::can_shrink() const { return state_->format == ImageFormat::jpeg && state_->jpeg.can_shrink(); }

int Decoder::warnings() const { return state_->format == ImageFormat::jpeg ? state_->jpeg.warnings() : 0; }
