// mutate.cpp: changes that know nothing of a format, and the order of all of them.
#include "mutate.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

namespace {

constexpr size_t largest_input = 1 << 16;   // or copies of copies would fill the memory

size_t place(const Bytes& bytes, RandomSequence& draw) { return draw.below(uint32_t(bytes.size())); }

// Mostly short.
size_t stretch(const Bytes& bytes, size_t at, RandomSequence& draw) {
  const size_t wished = 1 + draw.below(1u << draw.below(10));
  return std::min(wished, bytes.size() - at);
}

void number_edit(Bytes& bytes, RandomSequence& draw) {
  const size_t width = size_t(1) << draw.below(4);
  if (bytes.size() < width) return;
  const size_t at = draw.below(uint32_t(bytes.size() - width + 1));
  uint64_t value = draw.chance(0.1) ? (uint64_t(edge(draw)) << 32 | edge(draw)) : edge(draw);
  if (draw.chance(0.2)) value = bytes.size() + draw.below(5) - 2;
  put_big_endian(bytes, at, value, int(width));
  if (draw.chance(0.5)) std::reverse(bytes.begin() + long(at), bytes.begin() + long(at + width));
}

void block_edit(Bytes& bytes, RandomSequence& draw) {
  const size_t from = place(bytes, draw), length = stretch(bytes, from, draw), to = place(bytes, draw);
  const Bytes block(bytes.begin() + long(from), bytes.begin() + long(from + length));
  switch (draw.below(6)) {
    case 0: bytes.erase(bytes.begin() + long(from), bytes.begin() + long(from + length)); break;
    case 1: bytes.insert(bytes.begin() + long(to), block.begin(), block.end()); break;
    case 2: std::copy_n(block.begin(), std::min(length, bytes.size() - to), bytes.begin() + long(to)); break;
    case 3: std::fill_n(bytes.begin() + long(from), length, uint8_t(edge(draw))); break;
    case 4:
      for (size_t i = 0; i < std::min(length, bytes.size() - to); i++) std::swap(bytes[from + i], bytes[to + i]);
      break;
    default: bytes.resize(from);
  }
}

}  // namespace

uint32_t edge(RandomSequence& draw) {
  constexpr std::array<uint32_t, 8> plain = {0, 1, 2, 3, 7, 10, 100, ~0u};
  if (draw.chance(0.3)) return plain[draw.below(plain.size())];
  return (1u << draw.below(32)) + draw.below(3) - 1;
}

void put_big_endian(Bytes& bytes, size_t at, uint64_t value, int count) {
  for (int i = 0; i < count; i++) bytes[at + size_t(i)] = uint8_t(value >> (8 * (count - 1 - i)));
}

uint64_t get_big_endian(const Bytes& bytes, size_t at, int count) {
  uint64_t value = 0;
  for (int i = 0; i < count; i++) value = value << 8 | bytes[at + size_t(i)];
  return value;
}

void mutate_any(Bytes& bytes, RandomSequence& draw) {
  if (bytes.empty()) {
    bytes.push_back(uint8_t(draw.word()));
    return;
  }
  switch (draw.below(5)) {
    case 0: bytes[place(bytes, draw)] ^= uint8_t(1 << draw.below(8)); break;
    case 1: bytes[place(bytes, draw)] = uint8_t(edge(draw)); break;
    case 2: bytes[place(bytes, draw)] += uint8_t(draw.below(9) - 4); break;
    case 3: number_edit(bytes, draw); break;
    default: block_edit(bytes, draw);
  }
}

void repair_index_file(Bytes& bytes) {
  constexpr std::string_view version = "lipsgrad image index 1\n";
  if (bytes.size() < version.size() + 4) return;
  const size_t body = version.size() + 4;
  const uint32_t sum = uint32_t(crc32_z(0, bytes.data() + body, bytes.size() - body));
  std::memcpy(&bytes[version.size()], &sum, 4);
}

Bytes mutated(const FuzzTarget& target, uint64_t seed, uint64_t number) {
  RandomSequence draw(RandomStream(seed, "fuzz " + target.name), 0, number);
  const auto any_seed = [&]() -> const Bytes& { return target.seeds[draw.below(uint32_t(target.seeds.size()))]; };
  Bytes bytes = any_seed();
  if (draw.chance(0.05)) {   // the head of one, the tail of another
    const Bytes& other = any_seed();
    bytes.resize(bytes.size() - draw.below(uint32_t(bytes.size())));
    bytes.insert(bytes.end(), other.begin() + long(draw.below(uint32_t(other.size()))), other.end());
  }
  for (uint32_t changes = 1 + draw.below(1u << draw.below(5)); changes > 0 && bytes.size() < largest_input; changes--) {
    const bool knowing = draw.chance(0.6);
    if (knowing && target.format == FuzzTarget::jpeg) mutate_jpeg(bytes, draw);
    else if (knowing && target.format == FuzzTarget::png) mutate_png(bytes, draw);
    else if (knowing && target.format == FuzzTarget::tar) mutate_tar(bytes, draw);
    else mutate_any(bytes, draw);
  }
  if (target.format == FuzzTarget::index && draw.chance(0.7)) repair_index_file(bytes);
  if (target.format == FuzzTarget::jpeg && draw.chance(0.5)) repair_restart_index(bytes);
  return bytes;
}
