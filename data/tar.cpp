// tar.cpp: 512-byte headers with octal numbers, content padded to 512, two zero blocks at the end.
#include "data/tar.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>

namespace {

constexpr int64_t block = 512;
constexpr int64_t max_text = 1 << 20;  // of a long name or a PAX header
constexpr size_t window_size = 1 << 13;

constexpr int name_at = 0, size_at = 124, checksum_at = 148, type_at = 156, magic_at = 257, prefix_at = 345;

std::string field(const uint8_t* header, int at, int length) {
  const char* p = reinterpret_cast<const char*>(header + at);
  return {p, strnlen(p, length)};
}

// Octal text, or base 256 when the top bit is set. Nothing when it is neither.
std::optional<int64_t> number(const uint8_t* p, int length) {
  if (p[0] & 0x80) {
    int64_t value = p[0] & 0x7f;
    for (int i = 1; i < length; i++) {
      if (value >= int64_t(1) << 54) return {};
      value = value << 8 | p[i];
    }
    return value;
  }
  int i = 0;
  while (i < length && p[i] == ' ') i++;
  int64_t value = 0;
  for (; i < length && p[i] >= '0' && p[i] <= '7'; i++) value = value * 8 + (p[i] - '0');
  for (; i < length; i++) {
    if (p[i] != 0 && p[i] != ' ') return {};
  }
  return value;
}

// The sum of all bytes, the checksum's own taken as spaces.
int64_t checksum(const uint8_t* header) {
  int64_t sum = 0;
  for (int i = 0; i < block; i++) sum += i >= checksum_at && i < checksum_at + 8 ? ' ' : header[i];
  return sum;
}

bool leaves_the_folder(const std::string& name) {
  return name.starts_with("/") || name == ".." || name.starts_with("../") || name.ends_with("/..") ||
         name.find("/../") != std::string::npos;
}

int64_t padded(int64_t size) { return (size + block - 1) / block * block; }

}  // namespace

void TarReader::damaged(const std::string& what) const {
  fail(Exit::bad_data, file_.path(), ": ", what, " (at byte ", at_, " of ", file_.size(), ")");
}

void TarReader::load(int64_t offset, uint8_t* out, size_t length) {
  if (offset > end_ || int64_t(length) > end_ - offset) damaged("the tar file is truncated");
  const bool inside = offset >= window_at_ && offset + int64_t(length) <= window_at_ + int64_t(window_.size());
  if (!inside) {
    window_.resize(std::max(window_size, length));
    window_at_ = offset;
    window_.resize(file_.read_at(offset, window_.data(), window_.size()));
    if (window_.size() < length) damaged("the tar file became shorter while it was read");
  }
  std::memcpy(out, window_.data() + (offset - window_at_), length);
}

std::string TarReader::text(int64_t offset, int64_t size) {
  if (size > max_text) damaged("a header of the tar file is too long");
  std::string out(size_t(size), 0);
  load(offset, reinterpret_cast<uint8_t*>(out.data()), out.size());
  return out;
}

// Records "LENGTH KEY=VALUE\n"; the length counts the whole record.
void TarReader::read_pax(const std::string& records, TarMember& override) const {
  for (size_t at = 0; at < records.size();) {
    const size_t space = records.find(' ', at);
    const std::string digits = space == std::string::npos ? "" : records.substr(at, space - at);
    const bool plain =
        !digits.empty() && digits.size() < 8 && digits.find_first_not_of("0123456789") == std::string::npos;
    const size_t length = plain ? std::stoul(digits) : 0;
    if (length < digits.size() + 3 || length > records.size() - at) damaged("a PAX header is damaged");
    const std::string record = records.substr(space + 1, length - digits.size() - 2);
    const size_t equals = record.find('=');
    if (equals == std::string::npos) damaged("a PAX header is damaged");
    const std::string key = record.substr(0, equals), value = record.substr(equals + 1);
    if (key == "path") override.name = value;
    if (key == "size") {
      const bool is_number =
          !value.empty() && value.size() <= 18 && value.find_first_not_of("0123456789") == std::string::npos;
      if (!is_number) damaged("a PAX header is damaged");
      override.size = std::stoll(value);
    }
    at += length;
  }
}

std::optional<TarMember> TarReader::next() {
  TarMember override{"", 0, -1};  // what long-name and PAX headers say about the member behind them
  while (true) {
    std::array<uint8_t, block> header;
    load(at_, header.data(), block);
    if (std::all_of(header.begin(), header.end(), [](uint8_t b) { return b == 0; })) return {};
    if (number(&header[checksum_at], 8) != checksum(header.data())) {
      damaged(at_ == begin_ ? "this is not a tar file (a compressed one must be unpacked first)"
                       : "a tar header is damaged");
    }
    const auto size = number(&header[size_at], 12);
    if (!size) damaged("a tar header is damaged");
    TarMember member{field(header.data(), name_at, 100), at_ + block, override.size >= 0 ? override.size : *size};
    if (std::memcmp(&header[magic_at], "ustar\0", 6) == 0 && header[prefix_at] != 0) {
      member.name = field(header.data(), prefix_at, 155) + "/" + member.name;
    }
    if (!override.name.empty()) member.name = override.name;
    const char type = char(header[type_at]);
    const bool describes = type == 'x' || type == 'g' || type == 'L' || type == 'K';
    if (describes) member.size = *size;
    if (member.size > end_ - member.offset) damaged(str("the tar file is truncated inside ", member.name));

    if (type == 'x') read_pax(text(member.offset, member.size), override);
    if (type == 'L') override.name = text(member.offset, member.size).c_str();
    if (type == '1' || type == '2') damaged(str("a shard must hold plain files, but ", member.name, " is a link"));
    if (leaves_the_folder(member.name)) damaged(str("the name ", member.name, " leaves the folder"));
    at_ = member.offset + padded(member.size);
    if (describes) continue;
    if (type != '0' && type != 0 && type != '5') damaged(str(member.name, " is not a plain file"));
    if (type == '5') {
      override = {"", 0, -1};
      continue;
    }
    while (member.name.starts_with("./")) member.name.erase(0, 2);
    return member;
  }
}

void TarWriter::add(const std::string& name, std::span<const uint8_t> content) {
  check(!name.empty() && name.size() < 100, "[tar] a name must have 1 to 99 characters: ", name);
  std::array<uint8_t, block> header{};
  const auto put = [&](int at, const char* format, auto value) {
    std::snprintf(reinterpret_cast<char*>(&header[at]), 13, format, value);
  };
  put(size_at, "%011llo", static_cast<unsigned long long>(content.size()));
  put(100, "%07o", 0444u);  // mode
  put(108, "%07o", 0u);     // user
  put(116, "%07o", 0u);     // group
  put(136, "%011o", 0u);    // time: fixed, so that packing twice gives the same bytes
  std::memcpy(&header[name_at], name.data(), name.size());
  std::memcpy(&header[magic_at], "ustar\0" "00", 8);
  header[type_at] = '0';
  put(checksum_at, "%06o", unsigned(checksum(header.data())));
  header[checksum_at + 7] = ' ';

  static constexpr std::array<uint8_t, block> zeros{};
  out_.write(header);
  out_.write(content);
  out_.write(std::span(zeros).first(size_t(padded(int64_t(content.size())) - int64_t(content.size()))));
}

void TarWriter::close() {
  constexpr std::array<uint8_t, 2 * block> end{};
  out_.write(end);
  out_.close();
}
