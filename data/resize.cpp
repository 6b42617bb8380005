// resize.cpp: two passes of fixed-point sums, the first one rounded to u8, as Pillow does it.
//
// The first pass takes two rows side by side, a lane each, and gathers the taps of an output two at a time. The second takes a row as it lies.
// Rows go from one to the other through a ring that stays in the cache. Sums that leave 32 bits come back into them: they are exact modulo
// 2^32, and what they add up to is small.
#include "data/resize.h"

#include <algorithm>
#include <cstring>

#include "engine/pair_sums.h"
#include "engine/check.h"

namespace {

constexpr int lane = 16, rows_at_once = 2, vector_bytes = 32;

Shorts16 both(int32_t pair) { return Shorts16(Ints8{} + pair); }

struct Sum {
  Ints8 high = {}, low = {};
  void add(Shorts16 taps, int32_t high_pair, int32_t low_pair) {
    high += pair_sums(taps, both(high_pair));
    low += pair_sums(taps, both(low_pair));
  }
  Ints8 pixels() const { return (high * (1 << resize_low_bits) + low + (1 << (resize_precision - 1))) >> resize_precision; }
};

// The pair of pixels [at, at + 2) of each lane: a channel's two values side by side.
template <int channels> Bytes32 pair_order(int at) {
  Bytes32 order = Bytes32{} + 255;
  for (int l = 0; l < 32; l += lane)
    for (int c = 0; c < channels; c++)
      for (int tap = 0; tap < 2; tap++) order[l + 4 * c + 2 * tap] = uint8_t((at + tap) * channels + c);
  return order;
}

// Four pixels of four bytes each -> four pixels without a gap.
template <int channels> Bytes32 dense_order() {
  Bytes32 order = Bytes32{} + 255;
  for (int l = 0; l < 32; l += lane)
    for (int i = 0; i < 4 * channels; i++) order[l + i] = uint8_t(i / channels * 4 + i % channels);
  return order;
}

// in: two rows of [width, channels] that may be read `slack` bytes too far -> out: two rows of [outputs, channels] with room for a lane more
template <int channels> void resize_two_rows(const uint8_t* in, size_t in_stride, const ResizeAxis& axis, uint8_t* out, uint8_t* out2) {
  const Bytes32 first_pair = pair_order<channels>(0), second_pair = pair_order<channels>(2), dense = dense_order<channels>();
  const int outputs = int(axis.first.size()), pairs = axis.pairs;
  for (int i = 0; i < outputs; i += 4) {
    Ints8 pixels[4] = {};
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
      if (i + k >= outputs) break;
      const int32_t *high = &axis.high[size_t(i + k) * pairs], *low = &axis.low[size_t(i + k) * pairs];
      const uint8_t* taps = in + size_t(axis.first[i + k]) * channels;
      Sum sum;
      int p = 0;
      for (; p + 1 < pairs; p += 2, taps += 4 * channels) {
        const Bytes32 bytes = load_lanes(taps, taps + in_stride);
        sum.add(Shorts16(shuffle_lanes(bytes, first_pair)), high[p], low[p]);
        sum.add(Shorts16(shuffle_lanes(bytes, second_pair)), high[p + 1], low[p + 1]);
      }
      if (p < pairs) sum.add(Shorts16(shuffle_lanes(load_lanes(taps, taps + in_stride), first_pair)), high[p], low[p]);
      pixels[k] = sum.pixels();
    }
    const Bytes32 line = shuffle_lanes(to_bytes(pixels[0], pixels[1], pixels[2], pixels[3]), dense);
    std::memcpy(out + i * channels, &line, lane);
    std::memcpy(out2 + i * channels, reinterpret_cast<const uint8_t*>(&line) + lane, lane);
  }
}

// One output row from 2 * pairs rows, `bytes` of it; all may be read to a whole vector.
void resize_row(const uint8_t* const* rows, int pairs, const int32_t* high, const int32_t* low, int bytes, uint8_t* out) {
  for (int x = 0; x < bytes; x += vector_bytes) {
    Sum a, b, c, d;
    for (int p = 0; p < pairs; p++) {
      const Bytes32 even = load_bytes(rows[2 * p] + x), odd = load_bytes(rows[2 * p + 1] + x);
      a.add(pairs_of<0>(even, odd), high[p], low[p]);
      b.add(pairs_of<1>(even, odd), high[p], low[p]);
      c.add(pairs_of<2>(even, odd), high[p], low[p]);
      d.add(pairs_of<3>(even, odd), high[p], low[p]);
    }
    const Bytes32 line = to_bytes(a.pixels(), b.pixels(), c.pixels(), d.pixels());
    std::memcpy(out + x, &line, size_t(std::min(vector_bytes, bytes - x)));
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
  const int channels = source.channels;
  const size_t length = size_t(source.width) * channels;
  const int bytes = int(columns_.first.size()) * channels;
  const size_t ring_length = size_t(round_up(bytes, vector_bytes)) + vector_bytes;
  const int begin = rows_.first.front(), end = rows_.first.back() + rows_.count.back();
  const int capacity = 2 * rows_.pairs + rows_at_once;
  const size_t slack = size_t(2 * columns_.pairs) * channels + lane;   // that the first pass reads too far
  between_.resize(ring_length * capacity);
  taps_.resize(2 * rows_.pairs);
  const auto line = [&](int y) { return &between_[size_t(y % capacity) * ring_length]; };

  int next = 0;   // the output that is summed next
  for (int y = begin; y < end; y += rows_at_once) {
    const int rows = std::min(rows_at_once, end - y);
    const uint8_t* in = &source.pixels[y * length];
    size_t in_stride = length;
    if (rows < rows_at_once || (y + rows) * length + slack > source.pixels.size()) {   // near the end, from a copy
      in_stride = length + slack;
      last_.resize(rows_at_once * in_stride);
      for (int r = 0; r < rows; r++) std::copy_n(in + r * length, length, &last_[r * in_stride]);
      in = last_.data();
    }
    if (channels == 3) resize_two_rows<3>(in, in_stride, columns_, line(y), line(y + 1));
    else resize_two_rows<1>(in, in_stride, columns_, line(y), line(y + 1));
    for (; next < int(rows_.first.size()) && rows_.first[next] + rows_.count[next] <= y + rows; next++) {
      const int last = rows_.first[next] + rows_.count[next] - 1;
      for (int j = 0; j < 2 * rows_.pairs; j++) taps_[j] = line(std::min(rows_.first[next] + j, last));
      const size_t at = size_t(next) * rows_.pairs;
      resize_row(taps_.data(), rows_.pairs, &rows_.high[at], &rows_.low[at], bytes, out + next * stride);
    }
  }
}

// The same on its side.
void Resizer::rows_first(const Image& source, const RealBox& part, Size size, const Box& window, Interpolation kind, bool mirrored, uint8_t* out,
                         size_t stride) {
  Image turned{window.width, window.height, source.channels, {}};
  turned.pixels.resize(size_t(window.width) * window.height * source.channels);
  make_axis(source.height, {part.top, part.height}, size.height, window.top, window.height, kind, false, columns_);
  make_axis(source.width, {part.left, part.width}, size.width, window.left, window.width, kind, false, rows_);
  columns_first(transposed(source), turned.pixels.data(), size_t(window.height) * source.channels);
  cut_out(transposed(turned), {0, 0, window.height, window.width}, mirrored, out, stride);
}

void Resizer::operator()(const Image& source, Size size, const Box& window, Interpolation kind, bool mirrored, uint8_t* out,
                         size_t stride) {
  (*this)(source, {0, 0, double(source.height), double(source.width)}, size, window, kind, mirrored, out, stride);
}

void Resizer::operator()(const Image& source, const RealBox& part, Size size, const Box& window, Interpolation kind, bool mirrored, uint8_t* out,
                         size_t stride) {
  check(window.top >= 0 && window.left >= 0 && window.top + window.height <= size.height &&
            window.left + window.width <= size.width,
        "[resize] the window must lie inside ", size.height, " x ", size.width);
  check(source.channels == 1 || source.channels == 3, "[resize] 1 or 3 channels, given ", source.channels);
  check(part.top >= 0 && part.left >= 0 && part.height > 0 && part.width > 0 && part.top + part.height <= source.height &&
            part.left + part.width <= source.width,
        "[resize] the part must lie inside the source, ", source.height, " x ", source.width);
  const bool whole = part.height == source.height && part.width == source.width;
  if (whole && size.height == source.height && size.width == source.width) return cut_out(source, window, mirrored, out, stride);
  // Columns first, except for a very tall picture that shrinks: Pillow changes the order there, and rounding with it.
  if (source.height > 100 * int64_t(source.width) && size.height < source.height)
    return rows_first(source, part, size, window, kind, mirrored, out, stride);
  make_axis(source.width, {part.left, part.width}, size.width, window.left, window.width, kind, mirrored, columns_);
  make_axis(source.height, {part.top, part.height}, size.height, window.top, window.height, kind, false, rows_);
  columns_first(source, out, stride);
}
