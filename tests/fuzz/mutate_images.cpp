// mutate_images.cpp: changes to the segments of a JPEG and the chunks of a PNG.
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

#include "mutate.h"

namespace {

using std::string_view_literals::operator""sv;

struct Part {
  size_t at = 0, end = 0;
  uint8_t marker = 0;
};

// The segments of a JPEG, those behind the first scan too; coded data lie between them.
std::vector<Part> segments(const Bytes& bytes) {
  std::vector<Part> parts;
  for (size_t at = 2; at + 4 <= bytes.size() && parts.size() < 200;) {
    const uint8_t marker = bytes[at + 1];
    if (bytes[at] != 0xFF || marker < 0xC0 || (marker & 0xF8) == 0xD0) {
      at++;
      continue;
    }
    const size_t end = at + 2 + size_t(get_big_endian(bytes, at + 2, 2));
    if (end > bytes.size()) break;
    parts.push_back({at, end, marker});
    at = std::max(end, at + 2);
  }
  return parts;
}

template <class T, size_t n> T one_of(const std::array<T, n>& values, RandomSequence& draw) { return values[draw.below(n)]; }

bool is_frame(uint8_t marker) { return marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC; }

void change_frame(Bytes& bytes, const Part& frame, RandomSequence& draw) {
  if (frame.end - frame.at < 13) return;
  constexpr std::array<uint16_t, 20> sides = {0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 48, 64, 65, 255, 1024, 65500};
  constexpr std::array<uint8_t, 12> samplings = {0x11, 0x21, 0x12, 0x22, 0x41, 0x14, 0x44, 0x42, 0x31, 0x13, 0x00, 0xFF};
  constexpr std::array<uint8_t, 8> kinds = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC9, 0xCA, 0xCF};
  const size_t component = frame.at + 10 + 3 * draw.below(uint32_t((frame.end - frame.at - 10) / 3));
  switch (draw.below(6)) {
    case 0: put_big_endian(bytes, frame.at + 5, one_of(sides, draw), 2); break;
    case 1: put_big_endian(bytes, frame.at + 7, one_of(sides, draw), 2); break;
    case 2: bytes[component + 1] = one_of(samplings, draw); break;
    case 3: bytes[component + draw.below(3)] = uint8_t(draw.below(5)); break;
    case 4: bytes[frame.at + 1] = one_of(kinds, draw); break;
    default: bytes[frame.at + (draw.chance(0.5) ? 4 : 9)] = uint8_t(edge(draw));   // bits a sample, components
  }
}

void change_segment(Bytes& bytes, const Part& part, RandomSequence& draw) {
  if (is_frame(part.marker) && draw.chance(0.8)) return change_frame(bytes, part, draw);
  if (part.marker == 0xC4 && part.end - part.at > 21 && draw.chance(0.5)) {   // a code of one length more, of another fewer
    bytes[part.at + 5 + draw.below(16)]++;
    bytes[part.at + 5 + draw.below(16)]--;
    return;
  }
  if (part.marker == 0xDD && part.end - part.at == 6) return put_big_endian(bytes, part.at + 4, draw.below(40), 2);
  if (part.end - part.at > 4) bytes[part.at + 4 + draw.below(uint32_t(part.end - part.at - 4))] = uint8_t(draw.chance(0.5) ? edge(draw) : draw.word());
}

void change_order(Bytes& bytes, const Part& part, const Part& other, RandomSequence& draw) {
  const Bytes segment(bytes.begin() + long(part.at), bytes.begin() + long(part.end));
  if (draw.chance(0.5)) bytes.erase(bytes.begin() + long(part.at), bytes.begin() + long(part.end));
  if (other.at <= bytes.size()) bytes.insert(bytes.begin() + long(other.at), segment.begin(), segment.end());
}

// Coded data: a restart marker too many, one that counts wrongly, other markers, other bits.
void change_coded(Bytes& bytes, size_t from, RandomSequence& draw) {
  if (from >= bytes.size()) return;
  const size_t at = from + draw.below(uint32_t(bytes.size() - from));
  const std::array<uint8_t, 2> restart = {0xFF, uint8_t(0xD0 + draw.below(8))};
  switch (draw.below(6)) {
    case 0: bytes.insert(bytes.begin() + long(at), restart.begin(), restart.end()); break;
    case 1:
      for (size_t i = at; i + 1 < bytes.size(); i++)
        if (bytes[i] == 0xFF && (bytes[i + 1] & 0xF8) == 0xD0) {
          if (draw.chance(0.5)) bytes[i + 1] = restart[1];
          else bytes.erase(bytes.begin() + long(i), bytes.begin() + long(i + 2));
          break;
        }
      break;
    case 2: bytes[at] = 0xFF; break;
    case 3: bytes.insert(bytes.begin() + long(at), uint8_t(draw.word())); break;
    default: bytes[at] ^= uint8_t(1 << draw.below(8));
  }
}

std::vector<Part> chunks(const Bytes& bytes) {
  std::vector<Part> parts;
  for (size_t at = 8; at + 12 <= bytes.size();) {
    const size_t length = get_big_endian(bytes, at, 4);
    if (length > bytes.size() - at - 12) break;
    parts.push_back({at, at + 12 + length});
    at = parts.back().end;
  }
  return parts;
}

void repair_chunks(Bytes& bytes) {
  for (const Part& part : chunks(bytes))
    put_big_endian(bytes, part.end - 4, crc32_z(0, &bytes[part.at + 4], part.end - part.at - 8), 4);
}

// Unpacks the picture data, changes them, and packs them again.
void change_packed(Bytes& bytes, const Part& part, RandomSequence& draw) {
  Bytes rows(1 << 16);
  uLongf length = rows.size();
  if (uncompress(rows.data(), &length, &bytes[part.at + 8], part.end - part.at - 12) != Z_OK || length == 0) return;
  rows.resize(length);
  for (uint32_t changes = 1 + draw.below(8); changes > 0; changes--) mutate_any(rows, draw);
  Bytes packed(compressBound(rows.size()) + 12);
  length = packed.size() - 12;
  if (compress2(packed.data() + 8, &length, rows.data(), rows.size(), int(draw.below(10))) != Z_OK) return;
  packed.resize(length + 12);
  put_big_endian(packed, 0, length, 4);
  std::memcpy(&packed[4], &bytes[part.at + 4], 4);
  bytes.erase(bytes.begin() + long(part.at), bytes.begin() + long(part.end));
  bytes.insert(bytes.begin() + long(part.at), packed.begin(), packed.end());
}

void change_chunk(Bytes& bytes, const Part& part, RandomSequence& draw) {
  const bool header = std::memcmp(&bytes[part.at + 4], "IHDR", 4) == 0, data = std::memcmp(&bytes[part.at + 4], "IDAT", 4) == 0;
  constexpr std::array<uint32_t, 10> sides = {0, 1, 2, 7, 8, 22, 24, 64, 65500, 0x7FFFFFFF};
  constexpr std::array<uint8_t, 10> kinds = {0, 1, 2, 3, 4, 6, 8, 16, 5, 255};
  const size_t payload = part.end - part.at - 12;
  if (header && payload == 13 && draw.chance(0.7)) {
    if (draw.chance(0.4)) put_big_endian(bytes, part.at + 8 + 4 * draw.below(2), one_of(sides, draw), 4);
    else bytes[part.at + 16 + draw.below(5)] = one_of(kinds, draw);   // depth, colours, compression, filter, interlace
  } else if (data && draw.chance(0.6)) {
    change_packed(bytes, part, draw);
  } else if (payload > 0) {
    bytes[part.at + 8 + draw.below(uint32_t(payload))] ^= uint8_t(1 << draw.below(8));
  }
}

}  // namespace

void mutate_jpeg(Bytes& bytes, RandomSequence& draw) {
  const std::vector<Part> parts = segments(bytes);
  if (parts.empty()) return;
  const Part& part = parts[draw.below(uint32_t(parts.size()))];
  switch (draw.below(10)) {
    case 0: return put_big_endian(bytes, part.at + 2, draw.chance(0.5) ? part.end - part.at - 2 + draw.below(5) - 2 : edge(draw), 2);
    case 1: return change_order(bytes, part, parts[draw.below(uint32_t(parts.size()))], draw);
    case 2: {
      const std::array<uint8_t, 6> interval = {0xFF, 0xDD, 0, 4, 0, uint8_t(draw.below(20))};
      bytes.insert(bytes.begin() + long(part.at), interval.begin(), interval.end());
      return;
    }
    case 3: bytes[part.at + 1] = uint8_t(0xC0 + draw.below(64)); return;
    case 4:
    case 5:
    case 6: {
      const auto scan = std::find_if(parts.begin(), parts.end(), [](const Part& p) { return p.marker == 0xDA; });
      return change_coded(bytes, scan == parts.end() ? part.end : scan->end, draw);
    }
    default: change_segment(bytes, part, draw);
  }
}

void repair_restart_index(Bytes& bytes) {
  constexpr auto tag = "lipsgrad restarts\0"sv;
  size_t field = 0;
  for (const Part& part : segments(bytes)) {
    if (part.marker == 0xE9 && part.end - part.at >= 4 + tag.size() + 8 && std::memcmp(&bytes[part.at + 4], tag.data(), tag.size()) == 0)
      field = part.at + 4 + tag.size();
    if (part.marker != 0xDA || field == 0) continue;
    const uint32_t sum = uint32_t(crc32_z(0, bytes.data(), field));
    put_big_endian(bytes, field, crc32_z(sum, &bytes[field + 4], part.end - field - 4), 4);
    return;
  }
}

void mutate_png(Bytes& bytes, RandomSequence& draw) {
  const std::vector<Part> parts = chunks(bytes);
  if (parts.empty()) return;
  const Part& part = parts[draw.below(uint32_t(parts.size()))];
  switch (draw.below(8)) {
    case 0: put_big_endian(bytes, part.at, draw.chance(0.5) ? part.end - part.at - 12 + draw.below(5) - 2 : edge(draw), 4); break;
    case 1: change_order(bytes, part, parts[draw.below(uint32_t(parts.size()))], draw); break;
    case 2: {
      constexpr std::array<const char*, 8> types = {"IHDR", "PLTE", "IDAT", "IEND", "tRNS", "CgBI", "gAMA", "aBCD"};
      std::memcpy(&bytes[part.at + 4], one_of(types, draw), 4);
      break;
    }
    default: change_chunk(bytes, part, draw);
  }
  if (draw.chance(0.5)) repair_chunks(bytes);
}
