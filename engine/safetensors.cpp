// safetensors.cpp: the reader believes nothing that it has not checked; the writer follows the reference library.
#include "engine/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "engine/check.h"
#include "engine/durable_file.h"

namespace {

using nlohmann::json;

constexpr uint64_t max_header = 100'000'000;

struct Dtype {
  const char* name;
  int bits;
};

// In the order in which the reference library writes them.
constexpr std::array<Dtype, 22> dtypes{
    {{"U64", 64},        {"I64", 64},    {"F64", 64},    {"C64", 64},    {"F32", 32}, {"U32", 32},
     {"I32", 32},        {"BF16", 16},   {"F16", 16},    {"U16", 16},    {"I16", 16}, {"F8_E5M2FNUZ", 8},
     {"F8_E4M3FNUZ", 8}, {"F8_E8M0", 8}, {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"I8", 8},   {"U8", 8},
     {"F6_E3M2", 6},     {"F6_E2M3", 6}, {"F4", 4},      {"BOOL", 8}}};

// Its place in `dtypes`, or nothing for a name that the format does not have.
std::optional<size_t> rank_of(const std::string& dtype) {
  const auto found = std::find_if(dtypes.begin(), dtypes.end(), [&](const Dtype& d) { return dtype == d.name; });
  if (found == dtypes.end()) return std::nullopt;
  return found - dtypes.begin();
}

// Bytes of a packed tensor; nothing where the product overflows or ends inside a byte.
std::optional<uint64_t> packed_bytes(int bits, const std::vector<int64_t>& shape) {
  uint64_t total = static_cast<uint64_t>(bits);
  for (const int64_t side : shape) {
    if (side < 0 || __builtin_mul_overflow(total, static_cast<uint64_t>(side), &total)) return std::nullopt;
  }
  if (total % 8 != 0) return std::nullopt;
  return total / 8;
}

template <class... Why>
[[noreturn]] void damaged(const std::string& path, const Why&... why) {
  fail(Exit::bad_data, path, ": not a whole safetensors file: ", why...);
}

// A name as it may stand in a message of one line.
std::string quoted(const std::string& name) {
  const std::string text = json(name).dump(-1, ' ', true, json::error_handler_t::replace);
  return text.size() <= 100 ? text : text.substr(0, 100) + "...\"";
}

// The JSON object, held to what the parser alone would let pass: no key twice, no deeper than the format goes.
json parse_strictly(const std::string& path, const char* begin, const char* end) {
  std::vector<std::set<std::string>> open;
  const auto guard = [&](int depth, json::parse_event_t event, json& value) {
    if (event == json::parse_event_t::object_start) open.emplace_back();
    if (event == json::parse_event_t::object_end) open.pop_back();
    if (depth > 3) damaged(path, "the header is nested too deeply");
    if (event == json::parse_event_t::key && !open.back().insert(value.get<std::string>()).second)
      damaged(path, "the header names ", quoted(value.get<std::string>()), " twice");
    return true;
  };
  try {
    return json::parse(begin, end, guard);
  } catch (const json::exception&) {
    damaged(path, "the header is not valid JSON");
  }
}

struct Placed {
  uint64_t begin, end;
  const std::string* name;
};

std::vector<int64_t> read_shape(const std::string& path, const std::string& name, const json& list) {
  std::vector<int64_t> shape;
  if (!list.is_array()) damaged(path, "the shape of ", quoted(name), " is not a list");
  for (const json& side : list) {
    if (!side.is_number_unsigned() || side.get<uint64_t>() > INT64_MAX)
      damaged(path, "the shape of ", quoted(name), " holds what is not a size");
    shape.push_back(side.get<int64_t>());
  }
  return shape;
}

Placed read_entry(const std::string& path, const std::string& name, const json& value, SafetensorsEntry& entry) {
  if (!value.is_object() || value.size() != 3 || !value.contains("dtype") || !value.contains("shape") ||
      !value.contains("data_offsets"))
    damaged(path, quoted(name), " must have exactly dtype, shape and data_offsets");

  const json& dtype = value["dtype"];
  const auto rank = dtype.is_string() ? rank_of(dtype.get<std::string>()) : std::nullopt;
  if (!rank)
    damaged(path, quoted(name), " has the unknown dtype ",
            quoted(dtype.is_string() ? dtype.get<std::string>() : "?"));
  entry.dtype = dtypes[*rank].name;
  entry.shape = read_shape(path, name, value["shape"]);

  const json& offsets = value["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
      !offsets[1].is_number_unsigned())
    damaged(path, "data_offsets of ", quoted(name), " are not two sizes");
  const uint64_t begin = offsets[0].get<uint64_t>(), end = offsets[1].get<uint64_t>();
  if (end < begin) damaged(path, "data_offsets of ", quoted(name), " run backwards");

  const auto bytes = packed_bytes(dtypes[*rank].bits, entry.shape);
  if (!bytes) damaged(path, "the shape of ", quoted(name), " is impossible for ", entry.dtype);
  if (*bytes != end - begin)
    damaged(path, quoted(name), " needs ", *bytes, " bytes for its shape, data_offsets give it ", end - begin);
  entry.bytes = *bytes;
  return {begin, end, nullptr};
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::string& path) : path_(path) {
  map_file();
  try {
    parse_header();
  } catch (...) {  // the destructor does not run for an object that was never finished
    munmap(const_cast<uint8_t*>(map_), size_);
    throw;
  }
}

SafetensorsFile::~SafetensorsFile() { munmap(const_cast<uint8_t*>(map_), size_); }

void SafetensorsFile::map_file() {
  const int file = open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe must not hang us
  if (file < 0) fail(Exit::no_input, path_, ": cannot be read: ", std::strerror(errno));
  struct stat status {};
  const bool known = fstat(file, &status) == 0;
  if (!known || !S_ISREG(status.st_mode)) {
    close(file);
    fail(Exit::no_input, path_, ": cannot be read: not a regular file");
  }
  size_ = static_cast<size_t>(status.st_size);
  if (size_ < 8) {
    close(file);
    damaged(path_, "it has ", size_, " bytes, the header alone needs more");
  }
  void* map = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file, 0);
  const int error = errno;
  close(file);
  if (map == MAP_FAILED) fail(Exit::no_input, path_, ": cannot be mapped: ", std::strerror(error));
  map_ = static_cast<const uint8_t*>(map);
}

void SafetensorsFile::parse_header() {
  uint64_t header = 0;
  std::memcpy(&header, map_, 8);
  if (header > max_header) damaged(path_, "its header claims ", header, " bytes, more than the format allows");
  if (header > size_ - 8)
    damaged(path_, "its header claims ", header, " bytes, the file holds ", size_ - 8, " after the length");

  const char* text = reinterpret_cast<const char*>(map_) + 8;
  if (header == 0 || text[0] != '{') damaged(path_, "its header does not begin with {");
  const json root = parse_strictly(path_, text, text + header);

  std::vector<Placed> placed;
  const uint8_t* data = map_ + 8 + header;
  const uint64_t available = size_ - 8 - header;
  for (const auto& [name, value] : root.items()) {
    if (name == "__metadata__") continue;
    const auto [at, added] = tensors_.emplace(name, SafetensorsEntry{});
    Placed place = read_entry(path_, name, value, at->second);
    if (place.end > available)
      damaged(path_, quoted(name), " ends at byte ", place.end, " of the data, the file holds ", available,
              ": truncated?");
    at->second.data = data + place.begin;
    place.name = &at->first;
    placed.push_back(place);
  }

  std::sort(placed.begin(), placed.end(),
            [](const Placed& a, const Placed& b) { return std::pair(a.begin, a.end) < std::pair(b.begin, b.end); });
  uint64_t reached = 0;
  for (const Placed& place : placed) {
    if (place.begin != reached)
      damaged(path_, quoted(*place.name), " does not begin where the tensor before it ends");
    reached = place.end;
  }
  if (reached != available) damaged(path_, available - reached, " bytes after the last tensor belong to none");

  if (!root.contains("__metadata__")) return;
  const json& notes = root["__metadata__"];
  if (!notes.is_object()) damaged(path_, "__metadata__ is not an object");
  for (const auto& [key, value] : notes.items()) {
    if (!value.is_string()) damaged(path_, "__metadata__ ", quoted(key), " is not a string");
    metadata_[key] = value.get<std::string>();
  }
}

void write_safetensors(const std::string& path, const std::map<std::string, SafetensorsEntry>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  struct Item {
    size_t rank;
    const std::string* name;
    const SafetensorsEntry* entry;
  };
  std::vector<Item> items;
  for (const auto& [name, entry] : tensors) {
    const auto rank = rank_of(entry.dtype);
    check(rank, "[write_safetensors] ", quoted(name), " has the unknown dtype ", entry.dtype);
    check(name != "__metadata__", "[write_safetensors] no tensor may be called __metadata__");
    const auto bytes = packed_bytes(dtypes[*rank].bits, entry.shape);
    check(bytes && *bytes == entry.bytes, "[write_safetensors] ", quoted(name), " has ", entry.bytes,
          " bytes, not what its shape needs");
    items.push_back({*rank, &name, &entry});
  }
  std::stable_sort(items.begin(), items.end(), [](const Item& a, const Item& b) { return a.rank < b.rank; });

  std::string header = "{";
  if (!metadata.empty()) header += "\"__metadata__\":" + json(metadata).dump();
  uint64_t offset = 0;
  for (const Item& item : items) {
    if (header.size() > 1) header += ',';
    header += json(*item.name).dump() + ":{\"dtype\":\"" + item.entry->dtype +
              "\",\"shape\":" + json(item.entry->shape).dump() + ",\"data_offsets\":[" + std::to_string(offset) +
              "," + std::to_string(offset + item.entry->bytes) + "]}";
    offset += item.entry->bytes;
  }
  header += '}';
  header.resize((header.size() + 7) / 8 * 8, ' ');  // the data begins at a multiple of 8
  check(header.size() <= max_header, "[write_safetensors] the header of ", items.size(), " tensors is too long");

  const uint64_t length = header.size();
  DurableFile file(path);
  file.write(&length, 8);
  file.write(header);
  for (const Item& item : items) file.write(item.entry->data, item.entry->bytes);
  file.commit();
}
