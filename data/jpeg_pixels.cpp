// jpeg_pixels.cpp: a row of a block is a vector, a row of pixels sixteen at a time.
#include "data/jpeg_pixels.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

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

void widen(const uint8_t* in, int count, uint8_t* out) {
  for (int i = 0; i < count; i++) {
    out[2 * i] = uint8_t((3 * in[i] + in[i - 1] + 1) >> 2);
    out[2 * i + 1] = uint8_t((3 * in[i] + in[i + 1] + 2) >> 2);
  }
}

void widen_between(const uint8_t* near, const uint8_t* far, int count, uint8_t* out) {
  const auto sum = [&](int i) { return uint16_t(3 * near[i] + far[i]); };
  for (int i = 0; i < count; i++) {
    out[2 * i] = uint8_t((3 * sum(i) + sum(i - 1) + 8) >> 4);
    out[2 * i + 1] = uint8_t((3 * sum(i) + sum(i + 1) + 7) >> 4);
  }
}

namespace {

typedef uint8_t Bytes16 __attribute__((vector_size(16)));
typedef int16_t Shorts16 __attribute__((vector_size(32)));
typedef int32_t Ints16 __attribute__((vector_size(64)));

Shorts16 scaled(Shorts16 chroma, int factor) {   // factor: 16 bits behind the point
  const Ints16 wide = __builtin_convertvector(chroma, Ints16) * factor + (1 << 15);
  return __builtin_convertvector(wide >> 16, Shorts16);
}

Bytes16 clamped(Shorts16 v) {
  v = v < 0 ? Shorts16{} : v > 255 ? Shorts16{} + 255 : v;
  return __builtin_convertvector(v, Bytes16);
}

}  // namespace

void to_rgb(const uint8_t* y, const uint8_t* cb, const uint8_t* cr, int width, uint8_t* out) {
  for (int x = 0; x < width; x += 16, out += 48) {
    const Shorts16 luma = __builtin_convertvector(load<Bytes16>(y + x), Shorts16);
    const Shorts16 blue = __builtin_convertvector(load<Bytes16>(cb + x), Shorts16) - 128;
    const Shorts16 red = __builtin_convertvector(load<Bytes16>(cr + x), Shorts16) - 128;
    const Ints16 both = __builtin_convertvector(blue, Ints16) * 22554 + __builtin_convertvector(red, Ints16) * 46802;
    const Bytes16 r = clamped(luma + scaled(red, 91881)), b = clamped(luma + scaled(blue, 116130));
    const Bytes16 g = clamped(luma + __builtin_convertvector(((1 << 15) - both) >> 16, Shorts16));
    Bytes16 rg[2] = {__builtin_shufflevector(r, g, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23),
                     __builtin_shufflevector(r, g, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)};
    const Bytes16 pixels[3] = {
        __builtin_shufflevector(rg[0], b, 0, 1, 16, 2, 3, 17, 4, 5, 18, 6, 7, 19, 8, 9, 20, 10),
        __builtin_shufflevector(__builtin_shufflevector(rg[0], rg[1], 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26), b,
                                0, 21, 1, 2, 22, 3, 4, 23, 5, 6, 24, 7, 8, 25, 9, 10),
        __builtin_shufflevector(rg[1], b, 26, 6, 7, 27, 8, 9, 28, 10, 11, 29, 12, 13, 30, 14, 15, 31)};
    if (x + 16 <= width) std::memcpy(out, pixels, sizeof pixels);
    else std::memcpy(out, pixels, size_t(width - x) * 3);
  }
}
