// repack.cpp: jpeg_read_coefficients and jpeg_write_coefficients with a restart interval between them.
#include "data/repack.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>

#include "data/jpeg_errors.h"
#include "data/restart_index.h"
#include "engine/check.h"

namespace {

constexpr int wished_pixels = 64, fewest_mcus = 4, fewest_bytes = 150;
constexpr int most_intervals = 20'000;  // whose lengths fit into one segment of the file; a picture has 8192 rows at most

// The divisors of n, the smallest first.
std::vector<int> divisors(int n) {
  std::vector<int> all;
  for (int d = 1; d <= n; d++)
    if (n % d == 0) all.push_back(d);
  return all;
}

int nearest(const std::vector<int>& values, int wished) {
  return *std::min_element(values.begin(), values.end(), [&](int a, int b) { return std::abs(a - wished) < std::abs(b - wished); });
}

int choose_interval(int across, int down, int mcu_width, double bytes_per_mcu) {
  std::vector<int> choices = divisors(across);
  std::erase_if(choices, [&](int d) { return d < std::min(fewest_mcus, across) || (d * bytes_per_mcu < fewest_bytes && d < across); });
  return nearest(choices, wished_pixels / mcu_width);
}

int fit_interval(int wished, int across, int down) {
  std::vector<int> choices = divisors(across);
  std::erase_if(choices, [&](int d) { return int64_t(across / d) * down > most_intervals && d < across; });
  return nearest(choices, std::max(1, wished));
}

// Both sides of libjpeg, plain data: errors leave by longjmp.
struct Transcoding {
  jpeg_decompress_struct from;
  jpeg_compress_struct to;
  JpegErrors errors;
  unsigned char* bytes;  // malloc'ed by libjpeg, freed by repack_jpeg
  unsigned long length;
};

bool transcode(Transcoding& t, const uint8_t* bytes, size_t length, int wished) {
  t.from.err = t.to.err = prepare(t.errors);
  if (setjmp(t.errors.escape)) return false;
  jpeg_create_decompress(&t.from);
  jpeg_create_compress(&t.to);
  t.from.mem->max_memory_to_use = 1 << 30;
  jpeg_mem_src(&t.from, bytes, length);
  jpeg_read_header(&t.from, TRUE);
  if (t.from.num_components != 1 && t.from.num_components != 3) return false;
  jvirt_barray_ptr* coefficients = jpeg_read_coefficients(&t.from);
  jpeg_copy_critical_parameters(&t.from, &t.to);

  const bool one = t.from.num_components == 1;  // a lone component is coded block by block, whatever its sampling says
  const int mcu_width = one ? DCTSIZE : t.from.max_h_samp_factor * DCTSIZE, mcu_height = one ? DCTSIZE : t.from.max_v_samp_factor * DCTSIZE;
  const int across = (int(t.from.image_width) + mcu_width - 1) / mcu_width, down = (int(t.from.image_height) + mcu_height - 1) / mcu_height;
  const int chosen = wished > 0 ? wished : choose_interval(across, down, mcu_width, double(length) / across / down);
  t.to.restart_interval = unsigned(fit_interval(chosen, across, down));
  t.to.optimize_coding = TRUE;
  jpeg_mem_dest(&t.to, &t.bytes, &t.length);
  jpeg_write_coefficients(&t.to, coefficients);
  jpeg_finish_compress(&t.to);
  jpeg_finish_decompress(&t.from);
  return !t.errors.damaged;
}

// Empty when it is damaged, or larger than any picture may be.
std::vector<uint8_t> decoded(std::span<const uint8_t> jpeg) {
  try {
    Decoder decoder;
    const Size size = decoder.open(jpeg);
    Image image;
    decoder.read({0, 0, size.height, size.width}, 3, image);
    return std::move(image.pixels);
  } catch (const Error& error) {
    if (error.exit != Exit::bad_data) throw;
    return {};
  }
}

}  // namespace

std::optional<std::vector<uint8_t>> repack_jpeg(std::span<const uint8_t> jpeg, int interval) {
  check(interval >= 0, "[repack_jpeg] the interval must not be negative, got ", interval);
  const std::vector<uint8_t> pixels = decoded(jpeg);
  if (pixels.empty()) return {};
  Transcoding t{};
  const bool done = transcode(t, jpeg.data(), jpeg.size(), interval);
  jpeg_destroy_compress(&t.to);
  jpeg_destroy_decompress(&t.from);
  const std::unique_ptr<unsigned char, decltype(&std::free)> owner(t.bytes, std::free);
  if (!done) return {};
  std::vector<uint8_t> repacked = with_restart_index({t.bytes, t.length});
  if (decoded(repacked) != pixels) return {};
  return repacked;
}
