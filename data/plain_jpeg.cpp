// plain_jpeg.cpp: the segments of the file, read with suspicion, before stb_image sees them.
#include "data/plain_jpeg.h"

#include <algorithm>

#include "data/stb.h"
#include "engine/check.h"

namespace {

[[noreturn]] void refuse(const char* why) { fail(Exit::bad_data, "JPEG: libjpeg cannot decode it, and ", why); }

int u16(std::span<const uint8_t> bytes, size_t at) { return bytes[at] << 8 | bytes[at + 1]; }

// The frame: 8 bits, 1 or 3 components, all sampled alike, so that nothing is interpolated.
void check_frame(std::span<const uint8_t> segment) {
  if (segment.size() < 10 || segment[4] != 8) refuse("it has not 8 bits");
  const int components = segment[9];
  if ((components != 1 && components != 3) || segment.size() != size_t(10 + 3 * components)) refuse("it is not gray or of three colours");
  for (int c = 1; c < components; c++)
    if (segment[size_t(11 + 3 * c)] != segment[11]) refuse("its colours are sampled differently");
}

// Behind the header of the scan: coded data and restart markers, then the end mark and nothing else.
void check_scan(std::span<const uint8_t> data) {
  for (size_t i = 0; i + 1 < data.size(); i++) {
    if (data[i] != 0xFF || data[i + 1] == 0 || (data[i + 1] & 0xF8) == 0xD0) continue;
    if (data[i + 1] != 0xD9) refuse("it has more than one scan");
    return;
  }
  fail(Exit::bad_data, "JPEG: the file is truncated");
}

}  // namespace

Image read_plain_jpeg(std::span<const uint8_t> bytes, const Size& size) {
  int frames = 0;
  bool quantisation = false, codes = false;
  for (size_t at = 2;;) {
    if (at + 4 > bytes.size() || bytes[at] != 0xFF) refuse("its segments are damaged");
    const uint8_t marker = bytes[at + 1];
    const size_t length = size_t(u16(bytes, at + 2)) + 2;
    if (marker < 0xC0 || (marker >= 0xD0 && marker <= 0xD9) || length < 4 || length > bytes.size() - at) refuse("its segments are damaged");
    const std::span<const uint8_t> segment = bytes.subspan(at, length);
    at += length;
    quantisation |= marker == 0xDB;
    codes |= marker == 0xC4;
    const bool frame = marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
    if (frame && marker > 0xC1) refuse("it is not baseline");
    if (frame && ++frames == 1) check_frame(segment);
    if (marker != 0xDA) continue;
    if (frames != 1 || !quantisation || !codes) refuse("its tables are missing");
    check_scan(bytes.subspan(at));
    break;
  }
  const size_t padded = size_t(size.height + 64) * (size_t(size.width) + 64) * 4;
  const Image image = read_by_stb(bytes, padded + 4096 + (1 << 18), "JPEG");
  if (image.height != size.height || image.width != size.width) refuse("its size is not clear");
  return image;
}
