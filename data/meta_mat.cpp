// meta_mat.cpp: elements in elements, each inside the one around it.
#include "data/meta_mat.h"

#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/check.h"

namespace {

using Span = std::span<const uint8_t>;

constexpr size_t header_size = 128;
constexpr uint32_t of_matrix = 14, of_deflated = 15;                      // types of elements
constexpr uint8_t struct_class = 2, char_class = 4;                       // of matrices; numbers are 6 (double) and above
constexpr int64_t most_synsets = 100'000;
constexpr size_t longest_word = 64;

struct Element {
  uint32_t type = 0;
  Span data;
};

struct Matrix {
  uint8_t kind = 0;
  int64_t count = 0;
  std::string name;
  Span rest;   // its values
};

struct MatReader {
  const std::string& where;

  [[noreturn]] void refuse(const char* what) const { fail(Exit::bad_data, where, ": ", what); }

  static uint32_t u32(Span bytes) { return uint32_t(bytes[0]) | uint32_t(bytes[1]) << 8 | uint32_t(bytes[2]) << 16 | uint32_t(bytes[3]) << 24; }

  // The first element of `rest`, which is cut off from it. Up to four bytes lie in the tag itself; larger ones fill whole eights.
  Element next(Span& rest) const {
    if (rest.size() < 8) refuse("an element of the MATLAB file is truncated");
    const uint32_t tag = u32(rest);
    if (tag >> 16) {
      if (tag >> 16 > 4) refuse("an element of the MATLAB file is damaged");
      const Element small{tag & 0xFFFF, rest.subspan(4, tag >> 16)};
      rest = rest.subspan(8);
      return small;
    }
    const size_t size = u32(rest.subspan(4)), padded = tag == of_deflated ? size : (size + 7) / 8 * 8;
    if (size > rest.size() - 8) refuse("an element of the MATLAB file is truncated");
    const Element element{tag, rest.subspan(8, size)};
    rest = rest.subspan(std::min(rest.size(), 8 + padded));
    return element;
  }

  Matrix matrix(const Element& element) const {
    if (element.type != of_matrix) refuse("a value of the MATLAB file is no matrix");
    Matrix m;
    m.rest = element.data;
    const Span flags = next(m.rest).data, sides = next(m.rest).data;
    const Span name = next(m.rest).data;
    if (flags.size() < 4 || sides.size() < 8 || sides.size() % 4 != 0) refuse("a matrix of the MATLAB file is damaged");
    m.kind = flags[0];
    m.count = 1;
    for (size_t i = 0; i < sides.size(); i += 4) {
      m.count *= u32(sides.subspan(i));
      if (m.count > int64_t(max_devkit_bytes)) refuse("a matrix of the MATLAB file is too large");
    }
    m.name.assign(name.begin(), name.end());
    return m;
  }

  int whole_number(const Element& element) const {
    Matrix m = matrix(element);
    if (m.kind < 6 || m.count != 1) refuse("an ID or a number of children is no number");
    const Element value = next(m.rest);
    const auto as = [&]<class T>(T v) {
      if (value.data.size() != sizeof v) refuse("a number of the MATLAB file is damaged");
      std::memcpy(&v, value.data.data(), sizeof v);
      return double(v);
    };
    double number = -1;
    switch (value.type) {
      case 1: number = as(int8_t()); break;
      case 2: number = as(uint8_t()); break;
      case 3: number = as(int16_t()); break;
      case 4: number = as(uint16_t()); break;
      case 5: number = as(int32_t()); break;
      case 6: number = as(uint32_t()); break;
      case 7: number = as(float()); break;
      case 9: number = as(double()); break;
      default: refuse("a number of the MATLAB file is of an unknown type");
    }
    if (!(number >= 0 && number <= 1e9) || number != std::floor(number)) refuse("an ID or a number of children is no whole number");
    return int(number);
  }

  std::string word(const Element& element) const {
    Matrix m = matrix(element);
    const Element text = next(m.rest);
    const bool wide = text.type == 4 || text.type == 17, narrow = text.type == 1 || text.type == 2 || text.type == 16;
    const size_t step = wide ? 2 : 1;
    if (m.kind != char_class || !(wide || narrow) || text.data.size() % step != 0) refuse("a WNID is no text");
    std::string out;
    for (size_t i = 0; i < text.data.size(); i += step) {
      const bool plain = text.data[i] > ' ' && text.data[i] < 127 && (!wide || text.data[i + 1] == 0);
      if (!plain || out.size() == longest_word) refuse("a WNID is no word");
      out += char(text.data[i]);
    }
    if (out.empty()) refuse("a WNID is empty");
    return out;
  }

  std::map<int, std::string> synsets(Matrix m) const {
    if (m.kind != struct_class) refuse("its synsets are no array of structs");
    if (m.count < 1 || m.count > most_synsets) refuse("it has no synsets, or too many");
    const Span length = next(m.rest).data, names = next(m.rest).data;
    const size_t width = length.size() == 4 ? u32(length) : 0;
    if (width < 1 || width > longest_word || names.size() % width != 0) refuse("the fields of its synsets are damaged");
    const size_t fields = names.size() / width;
    const auto field = [&](const char* name) {
      for (size_t i = 0; i < fields; i++) {
        const char* at = reinterpret_cast<const char*>(names.data()) + i * width;
        if (std::string(at, strnlen(at, width)) == name) return i;
      }
      fail(Exit::bad_data, where, ": its synsets have no field ", name);
    };
    const size_t id_at = field("ILSVRC2012_ID"), wnid_at = field("WNID"), children_at = field("num_children");
    std::map<int, std::string> found;
    for (int64_t s = 0; s < m.count; s++) {
      int id = 0, children = 0;
      std::string wnid;
      for (size_t f = 0; f < fields; f++) {
        const Element value = next(m.rest);
        if (f == id_at) id = whole_number(value);
        if (f == wnid_at) wnid = word(value);
        if (f == children_at) children = whole_number(value);
      }
      if (children == 0 && !found.emplace(id, wnid).second) fail(Exit::bad_data, where, ": the ID ", id, " comes twice");
    }
    if (found.empty()) refuse("none of its synsets is without children");
    return found;
  }
};

}  // namespace

std::vector<uint8_t> inflated(Span bytes, bool gzip, size_t limit, const std::string& where) {
  z_stream stream{};
  if (inflateInit2(&stream, gzip ? 15 + 16 : 15) != Z_OK) fail(Exit::internal, "zlib cannot be set up");
  stream.next_in = const_cast<uint8_t*>(bytes.data());
  stream.avail_in = uInt(std::min<size_t>(bytes.size(), 1u << 30));
  std::vector<uint8_t> out;
  constexpr size_t step = 1 << 18;   // it grows with what is really there
  int code = Z_OK;
  while (code == Z_OK && out.size() <= limit) {
    const size_t before = out.size();
    out.resize(before + step);
    stream.next_out = out.data() + before;
    stream.avail_out = uInt(step);
    code = inflate(&stream, Z_NO_FLUSH);
    out.resize(out.size() - stream.avail_out);
  }
  inflateEnd(&stream);
  if (out.size() > limit) fail(Exit::bad_data, where, ": inflates to more than the limit of ", limit, " bytes");
  if (code != Z_STREAM_END) fail(Exit::bad_data, where, ": its compressed data are damaged or truncated");
  return out;
}

std::map<int, std::string> read_meta_mat(Span file, const std::string& where) {
  const MatReader reader{where};
  const bool known = file.size() >= header_size && file[124] == 0 && file[125] == 1 && file[126] == 'I' && file[127] == 'M';
  if (!known) reader.refuse("is no little-endian MATLAB 5 file");
  for (Span rest = file.subspan(header_size); !rest.empty();) {
    Element element = reader.next(rest);
    std::vector<uint8_t> plain;
    if (element.type == of_deflated) {
      plain = inflated(element.data, false, max_devkit_bytes, where);
      Span inner(plain);
      element = reader.next(inner);
    }
    if (element.type != of_matrix) continue;
    const Matrix m = reader.matrix(element);
    if (m.name == "synsets") return reader.synsets(m);
  }
  reader.refuse("has no variable synsets");
}
