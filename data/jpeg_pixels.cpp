// jpeg_pixels.cpp: a row of a block is a vector, a row of pixels sixteen at a time.
#include "data/jpeg_pixels.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "engine/pair_sums.h"

namespace {

// Unsigned, so that what no picture holds wraps around and is no undefined overflow.
typedef uint32_t Row __attribute__((vector_size(32)));
typedef int32_t SignedRow __attribute__((vector_size(32)));
typedef int16_t Shorts8 __attribute__((vector_size(16)));

constexpr int fraction = 13, kept = 2;   // bits behind the point of a factor; bits kept between the passes
// libjpeg's vector code adds pairs of columns i and i + 4 in 16 bits after the first pass, which makes a column at most 2^kept * sqrt(2) *
// cos(pi / 16) times the sum of its magnitudes. A picture of 8 bits has at most sqrt(16) * 1024 in a pair.
constexpr int largest_pair = 5900;
static_assert(largest_pair * (1 << kept) * 1.3871 < 32767);

constexpr uint32_t fixed(double x) { return uint32_t(int32_t(x * (1 << fraction) + (x < 0 ? -0.5 : 0.5))); }

// Eight 8-point transforms side by side, with the rotations of Loeffler, Ligtenberg and Moschytz (1989).
template <int shift> inline void transform(Row* v) {
  const Row even = (v[2] + v[6]) * fixed(0.541196100);
  const Row e2 = even - v[6] * fixed(1.847759065), e3 = even + v[2] * fixed(0.765366865);
  const Row e0 = (v[0] + v[4]) << fraction, e1 = (v[0] - v[4]) << fraction;
  const Row a[4] = {e0 + e3, e1 + e2, e1 - e2, e0 - e3};

  const Row z3 = v[7] + v[3], z4 = v[5] + v[1], z5 = (z3 + z4) * fixed(1.175875602);
  const Row z1 = (v[7] + v[1]) * fixed(0.899976223), z2 = (v[5] + v[3]) * fixed(2.562915447);
  const Row y3 = z5 - z3 * fixed(1.961570560), y4 = z5 - z4 * fixed(0.390180644);
  const Row b[4] = {v[1] * fixed(1.501321110) - z1 + y4, v[3] * fixed(3.072711026) - z2 + y3,
                    v[5] * fixed(2.053119869) - z2 + y4, v[7] * fixed(0.298631336) - z1 + y3};
  constexpr uint32_t half = 1u << (shift - 1);
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    v[i] = Row(SignedRow(a[i] + b[i] + half) >> shift);
    v[7 - i] = Row(SignedRow(a[i] - b[i] + half) >> shift);
  }
}

// 8 x 8: rows to columns, by single numbers, by pairs, by fours.
inline void turn(Row* v) {
  Row one[8], two[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    one[i] = __builtin_shufflevector(v[i], v[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    one[i + 1] = __builtin_shufflevector(v[i], v[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
#pragma GCC unroll 4
  for (int i : {0, 1, 4, 5}) {
    const int to = i / 4 * 4 + i % 4 * 2;
    two[to] = __builtin_shufflevector(one[i], one[i + 2], 0, 1, 8, 9, 4, 5, 12, 13);
    two[to + 1] = __builtin_shufflevector(one[i], one[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    v[i] = __builtin_shufflevector(two[i], two[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    v[i + 4] = __builtin_shufflevector(two[i], two[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
}

template <class V> V load(const void* from) {
  V v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

}  // namespace

bool inverse_dct(const int16_t* block, const int32_t* quanta, int last, uint8_t* out, int64_t stride) {
  if (last == 0) {
    const int level = block[0] * quanta[0], value = level * (1 << kept);   // of a row of the second pass: it alone is not zero
    const int pixel = std::clamp(((value + (1 << (kept + 2))) >> (kept + 3)) + 128, 0, 255);
    for (int y = 0; y < 8; y++) std::memset(out + y * stride, pixel, 8);
    return std::abs(level) <= largest_pair;
  }
  Row v[8];
  SignedRow sums{};   // of each column's magnitudes
#pragma GCC unroll 8
  for (int y = 0; y < 8; y++) {
    const SignedRow x = __builtin_convertvector(load<Shorts8>(block + 8 * y), SignedRow) * load<SignedRow>(quanta + 8 * y);
    sums += x < 0 ? -x : x;
    v[y] = Row(x);
  }
  const SignedRow beyond = sums + __builtin_shufflevector(sums, sums, 4, 5, 6, 7, 0, 1, 2, 3) > largest_pair;
  typedef int64_t Longs4 __attribute__((vector_size(32)));
  const Longs4 any = Longs4(beyond);
  if (any[0] | any[1] | any[2] | any[3]) [[unlikely]] return false;
  transform<fraction - kept>(v);
  turn(v);
  transform<fraction + kept + 3>(v);
  // v[x][y] is the pixel (y, x): four columns to a number, then both halves of a row side by side.
#pragma GCC unroll 8
  for (int x = 0; x < 8; x++) {
    SignedRow pixels = SignedRow(v[x]) + 128;
    pixels = pixels < 0 ? SignedRow{} : pixels;
    v[x] = Row(pixels > 255 ? SignedRow{} + 255 : pixels);
  }
  const Row left = v[0] | v[1] << 8 | v[2] << 16 | v[3] << 24, right = v[4] | v[5] << 8 | v[6] << 16 | v[7] << 24;
  const Row rows[2] = {__builtin_shufflevector(left, right, 0, 8, 1, 9, 2, 10, 3, 11), __builtin_shufflevector(left, right, 4, 12, 5, 13, 6, 14, 7, 15)};
#pragma GCC unroll 8
  for (int y = 0; y < 8; y++) {
    typedef uint64_t Rows4 __attribute__((vector_size(32)));
    const uint64_t bytes = Rows4(rows[y / 4])[y % 4];
    std::memcpy(out + y * stride, &bytes, 8);
  }
  return true;
}

namespace {

typedef uint16_t Samples __attribute__((vector_size(32)));   // 16 of them
constexpr int samples_at_once = 16;

Samples load_samples(const uint8_t* from) { return __builtin_convertvector(load<Bytes16>(from), Samples); }

// The even and the odd pixels, side by side.
void store_by_turns(Samples even, Samples odd, uint8_t* out) {
  const Samples bytes = even | odd << 8;
  std::memcpy(out, &bytes, sizeof bytes);
}

}  // namespace

void widen(const uint8_t* in, int count, uint8_t* out) {
  for (int i = 0; i < count; i += samples_at_once, in += samples_at_once, out += 2 * samples_at_once) {
    const Samples own = load_samples(in) * 3;
    store_by_turns((own + load_samples(in - 1) + 1) >> 2, (own + load_samples(in + 1) + 2) >> 2, out);
  }
}

void widen_between(const uint8_t* near, const uint8_t* far, int count, uint8_t* out) {
  const auto sum = [&](int i) { return load_samples(near + i) * 3 + load_samples(far + i); };
  for (int i = 0; i < count; i += samples_at_once, out += 2 * samples_at_once) {
    const Samples own = sum(i) * 3;
    store_by_turns((own + sum(i - 1) + 8) >> 4, (own + sum(i + 1) + 7) >> 4, out);
  }
}

namespace {

constexpr int pixels_at_once = 32;

// What chroma adds to luma, factors with 16 bits behind the point, rounded. Factors of 15 bits round alike for every chroma there is.
constexpr int add_red(int cr) { return (cr * 91881 + (1 << 15)) >> 16; }
constexpr int add_blue(int cb) { return (cb * 116130 + (1 << 15)) >> 16; }
constexpr int16_t red_factor = 13173, blue_factor = -7471;   // behind 1 and 2
static_assert([] {
  for (int c = -128; c < 128; c++)
    if (add_red(c) != c + ((c * red_factor + (1 << 14)) >> 15) || add_blue(c) != 2 * c + ((c * blue_factor + (1 << 14)) >> 15)) return false;
  return true;
}());

struct Colours {
  Shorts16 red, green, blue;
};

// Of 16 pixels; cb and cr: from -128 to 127.
Colours colours_of(Shorts16 y, Shorts16 cb, Shorts16 cr) {
  constexpr int green_blue = -22554, green_red = (1 << 16) - 46802;   // the second one behind -1
  const Shorts16 factors = Shorts16(Ints8{} + (green_red * (1 << 16) + (green_blue & 0xFFFF)));
  const Ints8 low = (pair_sums(low_pairs(cb, cr), factors) + (1 << 15)) >> 16, high = (pair_sums(high_pairs(cb, cr), factors) + (1 << 15)) >> 16;
  return {y + cr + rounded_product(cr, Shorts16{} + red_factor), y - cr + to_shorts(low, high), y + 2 * cb + rounded_product(cb, Shorts16{} + blue_factor)};
}

// Where byte i of the sixteenths `third` of 48 bytes comes from, of the bytes of colour `channel`.
Bytes32 order_of(int third, int channel) {
  Bytes32 order{};
  for (int i = 0; i < 32; i++) order[i] = uint8_t((third * 16 + i % 16) % 3 == channel ? (third * 16 + i % 16) / 3 : 255);
  return order;
}

}  // namespace

void to_rgb(const uint8_t* y, const uint8_t* cb, const uint8_t* cr, int width, uint8_t* out) {
  for (int x = 0; x < width; x += pixels_at_once, out += 3 * pixels_at_once) {
    const Bytes32 luma = load_bytes(y + x), blueness = load_bytes(cb + x), redness = load_bytes(cr + x);
    const Colours low = colours_of(low_shorts(luma), low_shorts(blueness) - 128, low_shorts(redness) - 128);
    const Colours high = colours_of(high_shorts(luma), high_shorts(blueness) - 128, high_shorts(redness) - 128);
    const Bytes32 red = to_bytes(low.red, high.red), green = to_bytes(low.green, high.green), blue = to_bytes(low.blue, high.blue);
    uint8_t border[3 * pixels_at_once];
    const bool whole = x + pixels_at_once <= width;
    uint8_t* pixels = whole ? out : border;
#pragma GCC unroll 3
    for (int third = 0; third < 3; third++) {
      const Bytes32 bytes = shuffle_lanes(red, order_of(third, 0)) | shuffle_lanes(green, order_of(third, 1)) | shuffle_lanes(blue, order_of(third, 2));
      std::memcpy(pixels + 16 * third, &bytes, 16);
      std::memcpy(pixels + 48 + 16 * third, reinterpret_cast<const uint8_t*>(&bytes) + 16, 16);
    }
    if (!whole) std::memcpy(out, border, size_t(width - x) * 3);
  }
}
