// event_file.cpp: varints, keys and checksums of TensorBoard's event files.
#include "train/event_file.h"

#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstring>
#include <unistd.h>

#include <fmt/format.h>

namespace {

// Slicing by eight: tables[k][b] is the checksum of byte b followed by k zero bytes.
constexpr auto crc_tables = [] {
  std::array<std::array<std::uint32_t, 256>, 8> tables{};
  for (std::uint32_t byte = 0; byte < 256; byte++) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (crc & 1 ? 0x82F63B78u : 0u);
    tables[0][byte] = crc;
  }
  for (std::size_t k = 1; k < 8; k++) {
    for (std::size_t byte = 0; byte < 256; byte++) {
      const std::uint32_t before = tables[k - 1][byte];
      tables[k][byte] = (before >> 8) ^ tables[0][before & 255];
    }
  }
  return tables;
}();

template <class T> void append_fixed(std::string& out, T value) {
  static_assert(std::endian::native == std::endian::little);
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  out.append(bytes, sizeof value);
}

void append_varint(std::string& out, std::uint64_t value) {
  for (; value >= 128; value >>= 7) out += static_cast<char>(value | 128);
  out += static_cast<char>(value);
}

void append_bytes(std::string& out, char key, std::string_view bytes) {
  out += key;
  append_varint(out, bytes.size());
  out += bytes;
}

// Event{wall_time, step}; protobuf leaves out a step of zero.
std::string event_head(double wall_time, std::int64_t step) {
  std::string event = "\x09";
  append_fixed(event, wall_time);
  if (step != 0) {
    event += '\x10';
    append_varint(event, static_cast<std::uint64_t>(step));
  }
  return event;
}

double now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

std::filesystem::path new_file_name(const std::filesystem::path& folder) {
  static std::atomic<int> count = 0;
  char host[256] = "localhost";
  ::gethostname(host, sizeof host - 1);
  return folder / fmt::format("events.out.tfevents.{:010}.{}.{}.{}", static_cast<std::int64_t>(now()), host,
                              ::getpid(), count++);
}

constexpr std::size_t flush_bytes = 1 << 20;
constexpr double flush_seconds = 30;

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  const auto& t = crc_tables;
  std::uint32_t crc = ~0u;
  for (; bytes.size() >= 8; bytes.remove_prefix(8)) {
    std::uint64_t word;
    std::memcpy(&word, bytes.data(), 8);
    word ^= crc;
    crc = t[7][word & 255] ^ t[6][word >> 8 & 255] ^ t[5][word >> 16 & 255] ^ t[4][word >> 24 & 255] ^
          t[3][word >> 32 & 255] ^ t[2][word >> 40 & 255] ^ t[1][word >> 48 & 255] ^ t[0][word >> 56];
  }
  for (const char c : bytes) crc = (crc >> 8) ^ t[0][(crc ^ static_cast<unsigned char>(c)) & 255];
  return ~crc;
}

std::uint32_t masked_crc32c(std::string_view bytes) { return std::rotr(crc32c(bytes), 15) + 0xA282EAD8u; }

std::string version_event(double wall_time) {
  std::string event = event_head(wall_time, 0);
  append_bytes(event, '\x1A', "brain.Event:2");
  return event;
}

std::string session_start_event(double wall_time, std::int64_t step) {
  std::string event = event_head(wall_time, step);
  append_bytes(event, '\x3A', "\x08\x01");   // SessionLog{status = START}
  return event;
}

std::string scalars_event(double wall_time, std::int64_t step, std::span<const Scalar> scalars) {
  std::string summary, value;
  for (const Scalar& scalar : scalars) {
    value.clear();
    append_bytes(value, '\x0A', scalar.tag);
    value += '\x15';
    append_fixed(value, scalar.value);
    append_bytes(summary, '\x0A', value);
  }
  std::string event = event_head(wall_time, step);
  append_bytes(event, '\x2A', summary);
  return event;
}

void append_record(std::string& out, std::string_view payload) {
  std::string length;
  append_fixed(length, static_cast<std::uint64_t>(payload.size()));
  out += length;
  append_fixed(out, masked_crc32c(length));
  out += payload;
  append_fixed(out, masked_crc32c(payload));
}

EventFile::EventFile(const std::filesystem::path& folder, std::optional<std::int64_t> resumed_at)
    : file_(new_file_name(folder), AppendFile::Open::fresh), last_flush_(now()) {
  append_record(buffer_, version_event(now()));
  if (resumed_at) append_record(buffer_, session_start_event(now(), *resumed_at));
  flush();
}

// An exception cannot leave a destructor: whoever must know of a full disk calls flush() first.
EventFile::~EventFile() {
  try {
    flush();
  } catch (const std::exception&) {
  }
}

void EventFile::write(std::int64_t step, std::span<const Scalar> scalars) {
  const double time = now();
  append_record(buffer_, scalars_event(time, step, scalars));
  if (buffer_.size() >= flush_bytes || time - last_flush_ >= flush_seconds) flush();
}

void EventFile::flush() {
  file_.append(buffer_);
  buffer_.clear();
  last_flush_ = now();
}
