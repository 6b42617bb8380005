// resize.cpp: two passes of fixed-point sums, the first one rounded to u8, as Pillow does it.
//
// The first pass takes 16 rows side by side, so that its sums are vectors; the second takes a row as it lies. Rows go from
// one to the other through a ring that stays in the cache.
#include "data/resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/check.h"
#include "engine/small_gemm.h"

namespace {

constexpr int chunk = 32;       // taps whose low sum stays below 2^24: 32 * 255 * 2^11
constexpr int side_by_side = 16;
constexpr int span = 48;        // floats that the second pass sums at a time

// totals [vectors] += the sums of `count` taps, which are vectors `step` floats apart.
template <int vectors> void add_taps(const float* taps, int64_t step, const float* high, const float* low, int count, int32_t* totals) {
  using F = Vector<float>;
  using I = Vector<int32_t>;
  for (int begin = 0; begin < count; begin += chunk) {
    F::type upper[vectors] = {}, lower[vectors] = {};
    for (int j = begin; j < std::min(count, begin + chunk); j++, taps += step) {
      const float h = high[j], l = low[j];
#pragma GCC unroll 6
      for (int v = 0; v < vectors; v++) {
        const F::type x = F::load(taps + v * lanes<float>);
        upper[v] += h * x;
        lower[v] += l * x;
      }
    }
#pragma GCC unroll 6
    for (int v = 0; v < vectors; v++) {
      int32_t* total = totals + v * lanes<int32_t>;
      const I::type sum = __builtin_convertvector(upper[v], I::type) * (1 << resize_low_bits) + __builtin_convertvector(lower[v], I::type);
      I::store(total, I::load(total) + sum);
    }
  }
}

void to_pixels(const int32_t* totals, int count, uint8_t* out) {
  for (int i = 0; i < count; i++) out[i] = uint8_t(std::clamp(totals[i] >> resize_precision, 0, 255));
}

constexpr int32_t half = 1 << (resize_precision - 1);

typedef uint8_t Bytes16 __attribute__((vector_size(16)));

// 16 x 16 bytes: rows to columns. Each round interleaves the upper half of the rows with the lower half.
void turn(Bytes16* rows) {
  for (int round = 0; round < 4; round++) {
    Bytes16 next[16];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
      next[2 * i] = __builtin_shufflevector(rows[i], rows[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      next[2 * i + 1] = __builtin_shufflevector(rows[i], rows[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    }
    std::copy_n(next, 16, rows);
  }
}

void to_floats(const uint8_t* bytes, int count, float* out) {
  for (int i = 0; i < count; i++) out[i] = float(bytes[i]);
}

// in: `rows` <= 16 rows of `length` bytes -> block: [length rounded up to 16, 16 rows]
void turn_in(const uint8_t* in, int rows, int length, float* block) {
  for (int x = 0; x < length; x += 16) {
    Bytes16 tile[16];
    for (int r = 0; r < 16; r++) {
      const uint8_t* from = in + int64_t(std::min(r, rows - 1)) * length + x;
      if (x + 16 <= length) {
        std::memcpy(&tile[r], from, 16);
      } else {
        tile[r] = Bytes16{};
        std::memcpy(&tile[r], from, length - x);
      }
    }
    turn(tile);
    uint8_t bytes[256];
    std::memcpy(bytes, tile, sizeof bytes);
    to_floats(bytes, 256, block + x * 16);
  }
}

// turned: [length, 16 rows], length whole sixteens -> lines: [rows, length]
void turn_out(const uint8_t* turned, int length, int rows, uint8_t* lines) {
  for (int x = 0; x < length; x += 16) {
    Bytes16 tile[16];
    std::memcpy(tile, turned + x * 16, sizeof tile);
    turn(tile);
    for (int r = 0; r < rows; r++) std::memcpy(lines + r * length + x, &tile[r], 16);
  }
}

// block: [width, channels, 16 rows] -> out: [outputs * channels, 16 rows]
template <int channels> void resize_columns(const float* block, const ResizeAxis& axis, uint8_t* out) {
  constexpr int values = channels * side_by_side;
  for (size_t i = 0; i < axis.first.size(); i++, out += values) {
    int32_t totals[values];
    std::fill_n(totals, values, half);
    const size_t at = i * axis.longest;
    add_taps<values / lanes<float>>(block + int64_t(axis.first[i]) * values, values, &axis.high[at], &axis.low[at], axis.count[i], totals);
    to_pixels(totals, values, out);
  }
}

// One output of the second pass, from a ring of `capacity` rows of `length` floats in which row y lies at y % capacity.
void resize_row(const float* ring, int capacity, int64_t length, const ResizeAxis& axis, int i, int bytes, uint8_t* out) {
  const int start = axis.first[i] % capacity, count = axis.count[i], before = std::min(count, capacity - start);
  const float *high = &axis.high[size_t(i) * axis.longest], *low = &axis.low[size_t(i) * axis.longest];
  for (int x = 0; x < bytes; x += span) {
    int32_t totals[span];
    std::fill_n(totals, span, half);
    add_taps<span / lanes<float>>(ring + start * length + x, length, high, low, before, totals);
    if (before < count) add_taps<span / lanes<float>>(ring + x, length, high + before, low + before, count - before, totals);
    if (x + span <= bytes) to_pixels(totals, span, out + x);
    else to_pixels(totals, bytes - x, out + x);
  }
}

int round_up(int n, int to) { return (n + to - 1) / to * to; }

Image transposed(const Image& image) {
  Image turned{image.width, image.height, image.channels, std::vector<uint8_t>(image.pixels.size())};
  for (int y = 0; y < image.height; y++)
    for (int x = 0; x < image.width; x++)
      std::copy_n(&image.pixels[(size_t(y) * image.width + x) * image.channels], image.channels,
                  &turned.pixels[(size_t(x) * image.height + y) * image.channels]);
  return turned;
}

// The window of an image, perhaps mirrored.
void cut_out(const Image& image, const Box& window, bool mirrored, uint8_t* out, size_t stride) {
  const int channels = image.channels;
  for (int y = 0; y < window.height; y++, out += stride) {
    const uint8_t* row = &image.pixels[(size_t(window.top + y) * image.width + window.left) * channels];
    if (!mirrored) std::copy_n(row, size_t(window.width) * channels, out);
    else
      for (int x = 0; x < window.width; x++) std::copy_n(row + (window.width - 1 - x) * channels, channels, out + x * channels);
  }
}

}  // namespace

void Resizer::columns_first(const Image& source, uint8_t* out, size_t stride) {
  const int channels = source.channels, length = source.width * channels;
  const int bytes = int(columns_.first.size()) * channels, padded_bytes = round_up(bytes, 16), ring_length = round_up(bytes, span);
  const int begin = rows_.first.front(), end = rows_.first.back() + rows_.count.back();
  const int capacity = rows_.longest + side_by_side;
  block_.resize(size_t(round_up(length, 16)) * side_by_side);
  turned_.resize(size_t(padded_bytes) * side_by_side);
  lines_.resize(turned_.size());
  between_.resize(size_t(capacity) * ring_length);

  int next = 0;   // the output that is summed next
  for (int y = begin; y < end; y += side_by_side) {
    const int rows = std::min(side_by_side, end - y);
    turn_in(&source.pixels[size_t(y) * length], rows, length, block_.data());
    if (channels == 3) resize_columns<3>(block_.data(), columns_, turned_.data());
    else resize_columns<1>(block_.data(), columns_, turned_.data());
    turn_out(turned_.data(), padded_bytes, rows, lines_.data());
    for (int r = 0; r < rows; r++)
      to_floats(&lines_[size_t(r) * padded_bytes], bytes, &between_[size_t((y + r) % capacity) * ring_length]);
    for (; next < int(rows_.first.size()) && rows_.first[next] + rows_.count[next] <= y + rows; next++)
      resize_row(between_.data(), capacity, ring_length, rows_, next, bytes, out + next * stride);
  }
}

// The same on its side.
void Resizer::rows_first(const Image& source, Size size, const Box& window, Interpolation kind, bool mirrored, uint8_t* out, size_t stride) {
  Image turned{window.width, window.height, source.channels, {}};
  turned.pixels.resize(size_t(window.width) * window.height * source.channels);
  make_axis(source.height, size.height, window.top, window.height, kind, false, columns_);
  make_axis(source.width, size.width, window.left, window.width, kind, false, rows_);
  columns_first(transposed(source), turned.pixels.data(), size_t(window.height) * source.channels);
  cut_out(transposed(turned), {0, 0, window.height, window.width}, mirrored, out, stride);
}

void Resizer::operator()(const Image& source, Size size, const Box& window, Interpolation kind, bool mirrored, uint8_t* out,
                         size_t stride) {
  check(window.top >= 0 && window.left >= 0 && window.top + window.height <= size.height &&
            window.left + window.width <= size.width,
        "[resize] the window must lie inside ", size.height, " x ", size.width);
  check(source.channels == 1 || source.channels == 3, "[resize] 1 or 3 channels, given ", source.channels);
  if (size.height == source.height && size.width == source.width) return cut_out(source, window, mirrored, out, stride);
  // Columns first, except for a very tall picture that shrinks: Pillow changes the order there, and rounding with it.
  if (source.height > 100 * int64_t(source.width) && size.height < source.height)
    return rows_first(source, size, window, kind, mirrored, out, stride);
  make_axis(source.width, size.width, window.left, window.width, kind, mirrored, columns_);
  make_axis(source.height, size.height, window.top, window.height, kind, false, rows_);
  columns_first(source, out, stride);
}
