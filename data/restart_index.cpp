// restart_index.cpp: a walk over the segments of a JPEG, and what is built from it.
#include "data/restart_index.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

#include "engine/check.h"

namespace {

using Span = std::span<const uint8_t>;
using std::string_view_literals::operator""sv;

constexpr auto tag = "lipsgrad restarts\0"sv;
constexpr uint8_t frame = 0xC0, extended_frame = 0xC1, scan = 0xDA, end_of_image = 0xD9, restart_interval = 0xDD, first_restart = 0xD0,
                  app9 = 0xE9;
constexpr size_t largest_segment = 65535;

int u16(Span bytes, size_t at) { return bytes[at] << 8 | bytes[at + 1]; }
uint32_t u32(Span bytes, size_t at) { return uint32_t(u16(bytes, at)) << 16 | uint32_t(u16(bytes, at + 2)); }

uint32_t checksum(Span bytes, uint32_t start = 0) { return uint32_t(crc32_z(start, bytes.data(), bytes.size())); }

// What the segments in front of the coded picture say.
struct Header {
  size_t end = 0, frame_at = 0, index_at = 0;  // 0: there is none
  int interval = 0;                            // MCUs
};

// Its `end` is 0 when no scan was found: unless there is an index, libjpeg will say what it is.
Header walk(Span bytes) {
  Header header;
  for (size_t at = 2; at + 4 <= bytes.size() && bytes[at] == 0xFF;) {
    const uint8_t marker = bytes[at + 1];
    const size_t length = size_t(u16(bytes, at + 2)), end = at + 2 + length;
    if (marker < frame || length < 2 || end > bytes.size()) break;
    if (marker == frame || marker == extended_frame) header.frame_at = at;
    if (marker == restart_interval && length == 4) header.interval = u16(bytes, at + 4);
    const bool is_index = marker == app9 && length >= 2 + tag.size() + 8 && std::memcmp(&bytes[at + 4], tag.data(), tag.size()) == 0;
    if (is_index) header.index_at = at;
    if (marker == scan) {
      header.end = end;
      return header;
    }
    at = end;
  }
  return header;
}

uint32_t header_checksum(Span bytes, size_t index_at, size_t header_end) {
  const size_t field = index_at + 4 + tag.size();
  return checksum(bytes.subspan(field + 4, header_end - field - 4), checksum(bytes.first(field)));
}

int divided_up(int a, int b) { return (a + b - 1) / b; }

// Everything but `begin`. False when the intervals are not tiles.
bool lay_out(Span bytes, const Header& header, RestartIndex& index) {
  if (header.frame_at == 0 || header.frame_at + 10 > header.end || header.interval < 1) return false;
  const size_t components_at = header.frame_at + 9;
  const int components = bytes[components_at];
  if (components < 1 || u16(bytes, header.frame_at + 2) < 8 + 3 * components) return false;
  index.horizontal = index.vertical = 1;
  for (int c = 0; c < components && components > 1; c++) {
    const int sampling = bytes[components_at + 2 + 3 * size_t(c)];
    index.horizontal = std::max(index.horizontal, sampling >> 4);
    index.vertical = std::max(index.vertical, sampling & 15);
  }
  index.header_end = header.end;
  index.size_field = header.frame_at + 5;
  index.image = {u16(bytes, index.size_field), u16(bytes, index.size_field + 2)};
  if (index.image.height < 1 || index.image.width < 1) return false;
  const int mcus_across = divided_up(index.image.width, 8 * index.horizontal);
  index.tile_height = 8 * index.vertical;
  index.tile_width = 8 * index.horizontal * header.interval;
  index.across = mcus_across / header.interval;
  index.down = divided_up(index.image.height, index.tile_height);
  return mcus_across % header.interval == 0;
}

[[noreturn]] void damaged(const char* what) { fail(Exit::bad_data, "JPEG: its restart index is damaged: ", what); }

void append(std::vector<uint8_t>& out, Span bytes) { out.insert(out.end(), bytes.begin(), bytes.end()); }

void append_u32(std::vector<uint8_t>& out, uint32_t value) {
  for (const int shift : {24, 16, 8, 0}) out.push_back(uint8_t(value >> shift));
}

// Offsets of the tiles, found by their markers, and of the end mark plus 2.
std::vector<size_t> find_tiles(Span jpeg, size_t from) {
  std::vector<size_t> begin{from};
  for (size_t i = from; i + 1 < jpeg.size(); i++) {
    if (jpeg[i] != 0xFF) continue;
    const uint8_t marker = jpeg[i + 1];
    if (marker == end_of_image || (marker & 0xF8) == first_restart) begin.push_back(i + 2);
    if (marker == end_of_image) break;
  }
  return begin;
}

}  // namespace

bool read_restart_index(Span jpeg, RestartIndex& index) {
  const Header header = walk(jpeg);
  if (header.index_at == 0) return false;
  const size_t segment = header.index_at, field = segment + 4 + tag.size();
  const bool intact = header.end > 0 && u32(jpeg, field) == header_checksum(jpeg, segment, header.end);
  if (!intact) damaged("a checksum is wrong");
  if (!lay_out(jpeg, header, index)) damaged("the intervals are no tiles");
  index.segment_begin = segment;
  index.segment_end = segment + 2 + size_t(u16(jpeg, segment + 2));
  index.data_checksum = u32(jpeg, field + 4);

  const size_t tiles = size_t(index.down) * index.across;
  if (tiles > largest_segment) damaged("it counts too many intervals");
  index.begin.resize(tiles + 1);
  index.begin[0] = index.header_end;
  size_t at = field + 8;
  for (size_t i = 0; i < tiles; i++) {
    size_t length = 0;
    for (int shift = 0;; shift += 7) {
      if (at >= index.segment_end || shift > 28) damaged("it ends too early");
      length |= size_t(jpeg[at] & 0x7F) << shift;
      if (!(jpeg[at++] & 0x80)) break;
    }
    index.begin[i + 1] = index.begin[i] + length + 2;
  }
  if (at != index.segment_end || index.begin.back() > jpeg.size()) damaged("the file is truncated");
  return true;
}

Columns needed_columns(const Box& region, int image_width, int horizontal_sampling) {
  int left = region.left, right = region.left + region.width;
  if (horizontal_sampling > 1) {
    const int fewest = 3 * horizontal_sampling;
    left = std::min(left - 1, image_width - fewest);
    right = std::max(right + 1, left + fewest);
  }
  return {std::max(0, left), std::min(image_width, right)};
}

Tiles tiles_of(const RestartIndex& index, const Box& region) {
  const Columns columns = needed_columns(region, index.image.width, index.horizontal);
  const int margin = index.vertical > 1 ? 1 : 0;  // rows between which chroma is interpolated
  return {std::max(0, region.top - margin) / index.tile_height,
          std::min(index.down, divided_up(region.top + region.height + margin, index.tile_height)),
          columns.left / index.tile_width, divided_up(columns.right, index.tile_width)};
}

void join_tiles(Span jpeg, const RestartIndex& index, const Tiles& tiles, std::vector<uint8_t>& out) {
  const auto first = [&](int row) { return index.begin[size_t(row) * index.across + tiles.left]; };
  const auto last = [&](int row) { return index.begin[size_t(row) * index.across + tiles.right]; };
  size_t total = index.header_end - (index.segment_end - index.segment_begin);
  for (int row = tiles.top; row < tiles.bottom; row++) total += last(row) - first(row);
  out.resize(total);
  uint8_t* to = std::copy_n(jpeg.data(), index.segment_begin, out.data());
  to = std::copy_n(jpeg.data() + index.segment_end, index.header_end - index.segment_end, to);

  const size_t size_field = index.size_field - (index.size_field > index.segment_begin ? index.segment_end - index.segment_begin : 0);
  const int height = std::min(tiles.bottom * index.tile_height, index.image.height) - tiles.top * index.tile_height;
  const int width = std::min(tiles.right * index.tile_width, index.image.width) - tiles.left * index.tile_width;
  for (const int i : {0, 1}) {
    out[size_field + size_t(i)] = uint8_t(height >> (8 - 8 * i));
    out[size_field + 2 + size_t(i)] = uint8_t(width >> (8 - 8 * i));
  }

  uint8_t number = 0;  // markers count modulo 8
  for (int row = tiles.top; row < tiles.bottom; row++) {
    const size_t begin = first(row);
    std::copy_n(jpeg.data() + begin, last(row) - begin, to);
    for (int column = tiles.left; column < tiles.right; column++) {
      uint8_t* marker = to + (index.begin[size_t(row) * index.across + size_t(column) + 1] - begin) - 2;
      marker[0] = 0xFF;
      marker[1] = uint8_t(first_restart + (number++ & 7));
    }
    to += last(row) - begin;
  }
  out.back() = end_of_image;  // in the place of the last restart marker
}

std::vector<uint8_t> with_restart_index(Span jpeg) {
  const Header header = walk(jpeg);
  RestartIndex index;
  check(header.end > 0 && header.index_at == 0 && lay_out(jpeg, header, index), "[restart_index] the JPEG must be baseline, with tiles and no index");
  index.begin = find_tiles(jpeg, header.end);
  check(index.begin.size() == size_t(index.down) * index.across + 1, "[restart_index] there must be one interval for each tile, found ",
        index.begin.size() - 1);

  std::vector<uint8_t> lengths;
  for (size_t i = 0; i + 1 < index.begin.size(); i++) {
    size_t length = index.begin[i + 1] - index.begin[i] - 2;
    for (; length > 0x7F; length >>= 7) lengths.push_back(uint8_t(length | 0x80));
    lengths.push_back(uint8_t(length));
  }
  const size_t length = 2 + tag.size() + 8 + lengths.size();
  check(length <= largest_segment, "[restart_index] too many intervals for one segment: ", index.begin.size() - 1);

  // In front of the frame header: what libjpeg writes before it (JFIF, Adobe, tables) keeps its place.
  const size_t at = index.size_field - 5;
  std::vector<uint8_t> out(jpeg.begin(), jpeg.begin() + long(at));
  append(out, std::array<uint8_t, 4>{0xFF, app9, uint8_t(length >> 8), uint8_t(length)});
  append(out, {reinterpret_cast<const uint8_t*>(tag.data()), tag.size()});
  append_u32(out, 0);
  append_u32(out, checksum(jpeg.subspan(header.end)));
  append(out, lengths);
  append(out, jpeg.subspan(at));

  const uint32_t sum = header_checksum(out, at, header.end + 2 + length);
  for (const int i : {0, 1, 2, 3}) out[at + 4 + tag.size() + size_t(i)] = uint8_t(sum >> (24 - 8 * i));
  return out;
}

bool index_is_true(Span jpeg, const RestartIndex& index) {
  const uint8_t *at = jpeg.data() + index.header_end, *end = jpeg.data() + index.begin.back();
  size_t tile = 0;
  while (at < end && (at = static_cast<const uint8_t*>(std::memchr(at, 0xFF, size_t(end - at))))) {
    if (at + 1 == end) return false;
    at += 2;
    if (at[-1] == 0) continue;   // a byte of the picture
    tile++;
    if (tile == index.begin.size() || at != jpeg.data() + index.begin[tile]) return false;
    if (at[-1] != (tile + 1 == index.begin.size() ? end_of_image : first_restart + (tile - 1) % 8)) return false;
  }
  return tile + 1 == index.begin.size();
}

bool picture_is_intact(Span jpeg, const RestartIndex& index) {
  return checksum(jpeg.subspan(index.header_end)) == index.data_checksum;
}
