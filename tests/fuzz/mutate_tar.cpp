// mutate_tar.cpp: changes to the headers of a tar file.
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>

#include "mutate.h"

namespace {

constexpr size_t block = 512, checksum_at = 148;

struct Field {
  size_t at, length;
};
constexpr std::array<Field, 9> fields = {{{0, 100}, {100, 8}, {124, 12}, {136, 12}, {148, 8}, {156, 1}, {157, 100}, {257, 8}, {345, 155}}};

// Blocks that look like a header: a name, and a checksum in octal digits.
std::vector<size_t> headers(const Bytes& bytes) {
  std::vector<size_t> found;
  for (size_t at = 0; at + block <= bytes.size(); at += block)
    if (bytes[at] != 0 && bytes[at + checksum_at] >= '0' && bytes[at + checksum_at] <= '7') found.push_back(at);
  return found;
}

void repair(Bytes& bytes, size_t header) {
  std::memset(&bytes[header + checksum_at], ' ', 8);
  unsigned sum = 0;
  for (size_t i = 0; i < block; i++) sum += bytes[header + i];
  char text[8];
  std::snprintf(text, sizeof text, "%06o", sum);
  std::memcpy(&bytes[header + checksum_at], text, 7);
}

void put_text(Bytes& bytes, size_t header, const Field& field, const char* text) {
  std::fill_n(bytes.begin() + long(header + field.at), field.length, uint8_t(0));
  std::memcpy(&bytes[header + field.at], text, std::min(std::strlen(text), field.length));
}

void change_size(Bytes& bytes, size_t header, RandomSequence& draw) {
  constexpr Field size = fields[2];
  char text[24];
  if (draw.chance(0.5)) {
    std::snprintf(text, sizeof text, "%011llo", static_cast<unsigned long long>(draw.chance(0.3) ? edge(draw) : draw.below(5000)));
    return put_text(bytes, header, size, text);
  }
  // Base 256: eight bytes behind the mark of the top bit.
  std::fill_n(bytes.begin() + long(header + size.at), size.length, uint8_t(draw.chance(0.2) ? 0xFF : 0));
  bytes[header + size.at] = uint8_t(draw.chance(0.8) ? 0x80 : 0xFF);
  put_big_endian(bytes, header + size.at + 4, uint64_t(edge(draw)) << draw.below(33) | draw.below(1024), 8);
}

// What stands in front of a member and speaks of it: a long name, or PAX records.
void insert_description(Bytes& bytes, size_t header, RandomSequence& draw) {
  constexpr std::array<const char*, 8> records = {"11 size=1\n", "30 size=999999999999999999\n", "20 path=../../evil\n", "6 a=\n", "12 path=a\n",
                                                  "99999999 path=b\n", "x", "14 size=-5\n"};
  const std::string text = draw.chance(0.7) ? records[draw.below(records.size())] : std::string(draw.below(1500), 'n');
  Bytes inserted(bytes.begin() + long(header), bytes.begin() + long(header + block));
  inserted.insert(inserted.end(), text.begin(), text.end());
  inserted.resize((inserted.size() + block - 1) / block * block);
  char size[24];
  std::snprintf(size, sizeof size, "%011zo", text.size());
  put_text(inserted, 0, fields[2], size);
  inserted[156] = uint8_t("xxgLK"[draw.below(5)]);
  repair(inserted, 0);
  bytes.insert(bytes.begin() + long(header), inserted.begin(), inserted.end());
}

}  // namespace

void mutate_tar(Bytes& bytes, RandomSequence& draw) {
  const std::vector<size_t> found = headers(bytes);
  if (found.empty()) return;
  const size_t header = found[draw.below(uint32_t(found.size()))];
  constexpr std::array<const char*, 12> names = {"a.jpg", "a.cls", "b.png", "b.json", "../x.jpg", "/x.jpg", "./././a.jpg", "x/../../y.cls", "..",
                                                 ".cls", "__a.jpg", "c.tar"};
  constexpr const char types[] = "0\0001234567xgLKSV";
  const Field& field = fields[draw.below(fields.size())];
  switch (draw.below(8)) {
    case 0:
    case 1: change_size(bytes, header, draw); break;
    case 2: bytes[header + 156] = uint8_t(types[draw.below(sizeof types)]); break;
    case 3: put_text(bytes, header, fields[0], names[draw.below(names.size())]); break;
    case 4: insert_description(bytes, header, draw); break;
    case 5: put_text(bytes, header, fields[8], draw.chance(0.5) ? "../.." : "folder"); break;
    case 6: {   // the member comes again, or the file ends here
      const Bytes rest(bytes.begin() + long(header), bytes.end());
      if (draw.chance(0.2)) bytes.resize(header);
      else bytes.insert(bytes.begin() + long(header), rest.begin(), rest.begin() + long(std::min(rest.size(), 2 * block)));
      return;
    }
    default: bytes[header + field.at + draw.below(uint32_t(field.length))] = uint8_t(draw.chance(0.5) ? '0' + draw.below(10) : edge(draw));
  }
  if (draw.chance(0.5)) repair(bytes, header);
}
