// pair_sums.h: sums of bytes times 16-bit weights, two taps an instruction, in 32-byte vectors of two lanes. Where the processor has no such
// instructions, loops say what they do.
#pragma once
#include <cstdint>
#include <cstring>

#ifdef __AVX2__
#include <immintrin.h>
#endif

typedef uint8_t Bytes16 __attribute__((vector_size(16)));
typedef uint8_t Bytes32 __attribute__((vector_size(32)));
typedef int16_t Shorts16 __attribute__((vector_size(32)));
typedef int32_t Ints8 __attribute__((vector_size(32)));

inline Bytes32 load_bytes(const uint8_t* p) {
  Bytes32 v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

// 16 bytes of each of two rows, a row a lane.
inline Bytes32 load_lanes(const uint8_t* first, const uint8_t* second) {
  Bytes16 a, b;
  std::memcpy(&a, first, sizeof a);
  std::memcpy(&b, second, sizeof b);
  return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29,
                                 30, 31);
}

// v_i = x_{order_i} within each lane; 0 where order_i >= 128.
inline Bytes32 shuffle_lanes(Bytes32 x, Bytes32 order) {
#ifdef __AVX2__
  return Bytes32(_mm256_shuffle_epi8(__m256i(x), __m256i(order)));
#else
  Bytes32 v;
  for (int i = 0; i < 32; i++) v[i] = order[i] < 128 ? x[(i & 16) + (order[i] & 15)] : 0;
  return v;
#endif
}

// v_i = x_{2i} w_{2i} + x_{2i+1} w_{2i+1}
inline Ints8 pair_sums(Shorts16 x, Shorts16 w) {
#ifdef __AVX2__
  return Ints8(_mm256_madd_epi16(__m256i(x), __m256i(w)));
#else
  Ints8 v;
  for (int i = 0; i < 8; i++) v[i] = int32_t(x[2 * i]) * w[2 * i] + int32_t(x[2 * i + 1]) * w[2 * i + 1];
  return v;
#endif
}

// (x w + 2^14) >> 15
inline Shorts16 rounded_product(Shorts16 x, Shorts16 w) {
#ifdef __AVX2__
  return Shorts16(_mm256_mulhrs_epi16(__m256i(x), __m256i(w)));
#else
  Shorts16 v;
  for (int i = 0; i < 16; i++) v[i] = int16_t((int32_t(x[i]) * w[i] + (1 << 14)) >> 15);
  return v;
#endif
}

// Of each lane: a's and b's first four by turns; the last four.
inline Shorts16 low_pairs(Shorts16 a, Shorts16 b) {
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 8, 24, 9, 25, 10, 26, 11, 27);
}
inline Shorts16 high_pairs(Shorts16 a, Shorts16 b) {
  return __builtin_shufflevector(a, b, 4, 20, 5, 21, 6, 22, 7, 23, 12, 28, 13, 29, 14, 30, 15, 31);
}

// The first eight bytes of each lane; the last eight.
inline Shorts16 low_shorts(Bytes32 x) {
  return Shorts16(__builtin_shufflevector(x, Bytes32{}, 0, 32, 1, 32, 2, 32, 3, 32, 4, 32, 5, 32, 6, 32, 7, 32, 16, 32, 17, 32, 18, 32, 19, 32, 20, 32,
                                          21, 32, 22, 32, 23, 32));
}
inline Shorts16 high_shorts(Bytes32 x) {
  return Shorts16(__builtin_shufflevector(x, Bytes32{}, 8, 32, 9, 32, 10, 32, 11, 32, 12, 32, 13, 32, 14, 32, 15, 32, 24, 32, 25, 32, 26, 32, 27, 32, 28,
                                          32, 29, 32, 30, 32, 31, 32));
}

// What low_pairs and high_pairs took apart, from -2^15 to 2^15 - 1 each.
inline Shorts16 to_shorts(Ints8 low, Ints8 high) {
#ifdef __AVX2__
  return Shorts16(_mm256_packs_epi32(__m256i(low), __m256i(high)));
#else
  Shorts16 v;
  for (int i = 0; i < 16; i++) v[i] = int16_t((i % 8 < 4 ? low : high)[i / 8 * 4 + i % 4]);
  return v;
#endif
}

// What low_shorts and high_shorts took apart, to bytes from 0 to 255.
inline Bytes32 to_bytes(Shorts16 low, Shorts16 high) {
#ifdef __AVX2__
  return Bytes32(_mm256_packus_epi16(__m256i(low), __m256i(high)));
#else
  Bytes32 v;
  for (int i = 0; i < 32; i++) {
    const int16_t x = (i % 16 < 8 ? low : high)[i / 16 * 8 + i % 8];
    v[i] = uint8_t(x < 0 ? 0 : x > 255 ? 255 : x);
  }
  return v;
#endif
}

// Four vectors of sums to bytes from 0 to 255, those of a lane in their order.
inline Bytes32 to_bytes(Ints8 a, Ints8 b, Ints8 c, Ints8 d) {
#ifdef __AVX2__
  return Bytes32(_mm256_packus_epi16(_mm256_packs_epi32(__m256i(a), __m256i(b)), _mm256_packs_epi32(__m256i(c), __m256i(d))));
#else
  Bytes32 v;
  const Ints8 all[4] = {a, b, c, d};
  for (int i = 0; i < 32; i++) {
    const int32_t sum = all[i % 16 / 4][i / 16 * 4 + i % 4];
    v[i] = uint8_t(sum < 0 ? 0 : sum > 255 ? 255 : sum);
  }
  return v;
#endif
}

// The bytes of two vectors by turns, as 16-bit pairs: those of bytes [4 quarter, 4 quarter + 4) of each lane.
template <int quarter> Shorts16 pairs_of(Bytes32 a, Bytes32 b) {
  constexpr int k = quarter % 2 * 4;
  const Bytes32 mixed = quarter < 2 ? __builtin_shufflevector(a, b, 0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5, 37, 6, 38, 7, 39, 16, 48, 17, 49, 18, 50,
                                                              19, 51, 20, 52, 21, 53, 22, 54, 23, 55)
                                    : __builtin_shufflevector(a, b, 8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47, 24, 56, 25, 57, 26,
                                                              58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63);
  constexpr int l = 2 * k, z = 32;   // from here on; a zero
  return Shorts16(__builtin_shufflevector(mixed, Bytes32{}, l, z, l + 1, z, l + 2, z, l + 3, z, l + 4, z, l + 5, z, l + 6, z, l + 7, z, l + 16, z,
                                          l + 17, z, l + 18, z, l + 19, z, l + 20, z, l + 21, z, l + 22, z, l + 23, z));
}
