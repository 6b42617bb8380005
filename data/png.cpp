// png.cpp: what stb_image does not look at: the chunks of the file and their checksums.
#include "data/png.h"

#include <zlib.h>

#include <algorithm>
#include <string_view>

#include "data/stb.h"
#include "engine/check.h"

namespace {

uint32_t big_endian(const uint8_t* p) { return uint32_t(p[0]) << 24 | p[1] << 16 | p[2] << 8 | p[3]; }

constexpr size_t signature = 8, chunk_frame = 12;  // a chunk: length, type, payload, checksum

// stb_image does not look at checksums: a flipped bit would pass as other pixels. And it copies the data of an empty first chunk to nowhere.
void check_chunks(std::span<const uint8_t> bytes) {
  bool has_data = false;
  for (size_t at = signature; bytes.size() - at >= chunk_frame;) {
    const uint8_t* chunk = bytes.data() + at;
    const size_t length = big_endian(chunk);
    if (length > bytes.size() - at - chunk_frame) break;
    if (crc32(0, chunk + 4, uInt(length + 4)) != big_endian(chunk + 8 + length)) {
      fail(Exit::bad_data, "PNG: a checksum is wrong");
    }
    const std::string_view type(reinterpret_cast<const char*>(chunk + 4), 4);
    if (type == "IEND") return;
    has_data |= type == "IDAT" && length > 0;
    if (type == "IDAT" && !has_data) fail(Exit::bad_data, "PNG: its data begin with an empty chunk");
    at += chunk_frame + length;
  }
  fail(Exit::bad_data, "PNG: the file is truncated");
}

}  // namespace

Size read_png_header(std::span<const uint8_t> bytes) {
  if (bytes.size() < signature + chunk_frame + 13) fail(Exit::bad_data, "PNG: the file is truncated");
  const uint32_t width = big_endian(&bytes[16]), height = big_endian(&bytes[20]);
  const uint32_t limit = max_image_side + 1;  // fits an int, and is refused by the caller
  return {int(std::min(height, limit)), int(std::min(width, limit))};
}

Image read_png(std::span<const uint8_t> bytes) {
  check_chunks(bytes);
  const Size size = read_png_header(bytes);
  const size_t largest = (size_t(size.width) * 8 + 1) * size.height;  // 4 channels of 16 bits
  return read_by_stb(bytes, 2 * std::max(largest, bytes.size()) + (1 << 16), "PNG");
}
