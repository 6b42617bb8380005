// event_file: TensorBoard's bytes, checked against known vectors.
#include "train/event_file.h"

#include <limits>

#include <doctest/doctest.h>

#include "engine/durable_file.h"
#include "synthetic_run.h"

namespace {

std::string bytes(std::initializer_list<int> values) { return {values.begin(), values.end()}; }

}  // namespace

TEST_CASE("events: CRC-32C") {
  CHECK(crc32c("") == 0u);
  CHECK(crc32c("123456789") == 0xE3069283u);
  CHECK(crc32c(std::string(32, '\0')) == 0x8A9136AAu);
  CHECK(crc32c(std::string(32, '\xFF')) == 0x62A8AB43u);
  CHECK(masked_crc32c("") == 0xA282EAD8u);
  CHECK(masked_crc32c("123456789") == 0xC78AB0E5u);
}

TEST_CASE("events: version record and scalar record") {
  std::string record;
  append_record(record, version_event(1700000000));
  CHECK(record == bytes({0x18, 0,    0,    0,    0,    0,    0,    0,    0xa3, 0x7f, 0x4b, 0x22, 0x09, 0,
                         0,    0,    0x40, 0xfc, 0x54, 0xd9, 0x41, 0x1a, 0x0d, 0x62, 0x72, 0x61, 0x69, 0x6e,
                         0x2e, 0x45, 0x76, 0x65, 0x6e, 0x74, 0x3a, 0x32, 0xec, 0xed, 0x8f, 0x9d}));
  record.clear();
  const Scalar loss{"loss", 0.5f};
  append_record(record, scalars_event(1700000001, 7, {&loss, 1}));
  CHECK(record == bytes({0x1a, 0,    0,    0,    0,    0,    0,    0,    0x12, 0x9b, 0xd8, 0x2d, 0x09, 0,
                         0,    0x40, 0x40, 0xfc, 0x54, 0xd9, 0x41, 0x10, 0x07, 0x2a, 0x0d, 0x0a, 0x0b, 0x0a,
                         0x04, 0x6c, 0x6f, 0x73, 0x73, 0x15, 0,    0,    0,    0x3f, 0x36, 0x8f, 0xc0, 0x84}));
}

TEST_CASE(
    "events: a resumed session starts with its step; several tags share an event; long tags take longer lengths") {
  CHECK(session_start_event(0, 5).substr(9) == bytes({0x10, 0x05, 0x3a, 0x02, 0x08, 0x01}));
  CHECK(session_start_event(0, 300).substr(9, 3) == bytes({0x10, 0xac, 0x02}));
  const std::string tag(200, 't');
  const Scalar two[] = {{"a", 0.0f}, {tag, 1.0f}};
  const std::string event = scalars_event(0, 0, two);
  // step 0 is left out, a value of 0 is not; lengths from 128 on take two bytes
  CHECK(event.substr(9) ==
        bytes({0x2a, 0xdd, 0x01, 0x0a, 0x08, 0x0a, 0x01, 'a', 0x15, 0, 0, 0, 0, 0x0a, 0xd0, 0x01, 0x0a, 0xc8, 0x01}) +
            tag + bytes({0x15, 0, 0, 0x80, 0x3f}));
}

TEST_CASE("events: a file is its version, its session and its scalars, each record with its sums") {
  const TestFolder folder("events");
  std::filesystem::path path;
  {
    EventFile file(folder.path, 5);
    path = file.path();
    const Scalar scalars[] = {{"train/loss", 0.25f}, {"train/lr", std::numeric_limits<float>::quiet_NaN()}};
    for (int step = 5; step < 9; step++) file.write(step, scalars);
    file.flush();
    CHECK(std::filesystem::file_size(path) > 200);
  }
  CHECK(path.filename().string().starts_with("events.out.tfevents."));
  const std::string all = read_file(path);
  int records = 0;
  for (std::size_t at = 0; at < all.size(); records++) {
    std::uint64_t length;
    std::uint32_t sum_of_length, sum;
    std::memcpy(&length, &all[at], 8);
    std::memcpy(&sum_of_length, &all[at + 8], 4);
    REQUIRE(at + 16 + length <= all.size());
    std::memcpy(&sum, &all[at + 12 + length], 4);
    CHECK(sum_of_length == masked_crc32c(std::string_view(all).substr(at, 8)));
    CHECK(sum == masked_crc32c(std::string_view(all).substr(at + 12, length)));
    at += 16 + length;
  }
  CHECK(records == 6);
  const EventFile second(folder.path);
  CHECK(second.path() != path);
}
