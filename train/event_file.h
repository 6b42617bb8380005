// event_file.h: TensorBoard event files, written by hand (TFRecord framing around small protobuf messages).
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "train/append_file.h"

struct Scalar {
  std::string_view tag;   // "train/loss": TensorBoard groups by the part before the first slash
  float value;
};

class EventFile {
 public:
  // A new file events.out.tfevents.TIME.HOST.PID.COUNT in the folder. A resumed run says at which step it goes on:
  // readers then forget the points from that step on that the earlier files of the run hold.
  explicit EventFile(const std::filesystem::path& folder, std::optional<std::int64_t> resumed_at = {});
  ~EventFile();

  void write(std::int64_t step, std::span<const Scalar> scalars);   // one event with several tags, buffered
  void flush();                                                     // at a checkpoint, and before the end
  const std::filesystem::path& path() const { return file_.path(); }

 private:
  AppendFile file_;
  std::string buffer_;
  double last_flush_;
};

// The bytes, for the writer and for its tests.
std::uint32_t crc32c(std::string_view bytes);
std::uint32_t masked_crc32c(std::string_view bytes);
std::string version_event(double wall_time);
std::string session_start_event(double wall_time, std::int64_t step);
std::string scalars_event(double wall_time, std::int64_t step, std::span<const Scalar> scalars);
void append_record(std::string& out, std::string_view payload);
