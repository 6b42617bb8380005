// random.h: randomness as a pure function of (seed, stream name, step, sample, element). No generator state exists.
//
// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). A resumed, replayed or re-split run
// asks for the same coordinates and so gets the same numbers.
#pragma once
#include <array>
#include <cmath>
#include <cstdint>
#include <string_view>

#include "host_device.h"

using Words = std::array<uint32_t, 4>;

constexpr HD Words philox4x32_10(Words counter, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; round++) {
    const uint64_t a = uint64_t(0xD2511F53u) * counter[0];
    const uint64_t b = uint64_t(0xCD9E8D57u) * counter[2];
    counter = {uint32_t(b >> 32) ^ counter[1] ^ key0, uint32_t(b), uint32_t(a >> 32) ^ counter[3] ^ key1, uint32_t(a)};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

// Known answers of the Random123 library, checked wherever this header is compiled.
static_assert(philox4x32_10({0, 0, 0, 0}, 0, 0) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
static_assert(philox4x32_10({~0u, ~0u, ~0u, ~0u}, ~0u, ~0u) == Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
static_assert(philox4x32_10({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0xa4093822, 0x299f31d0) ==
              Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});

// FNV-1a, 64 bit.
constexpr uint64_t hash_name(std::string_view name) {
  uint64_t h = 0xcbf29ce484222325ull;
  for (const char c : name) h = (h ^ uint8_t(c)) * 0x100000001b3ull;
  return h;
}

// The number of a step: itself, or where it stands on the device. A captured step reads it there, because what it was given is frozen.
struct StepNumber {
  uint32_t value = 0;
  const uint32_t* where = nullptr;
  constexpr HD StepNumber(uint32_t value = 0, const uint32_t* where = nullptr) : value(value), where(where) {}
  HD operator uint32_t() const { return where ? *where : value; }
};

// A named stream of random words, for instance RandomStream(seed, "layers.0.blocks.1.drop_path.2").
struct RandomStream {
  uint32_t key0 = 0, key1 = 0;
  RandomStream() = default;
  constexpr RandomStream(uint64_t seed, std::string_view name) {
    const uint64_t h = hash_name(name) + seed * 0x9E3779B97F4A7C15ull;
    key0 = uint32_t(h) ^ uint32_t(seed);
    key1 = uint32_t(h >> 32) ^ uint32_t(seed >> 32);
  }
  // Four words for the elements 4*block .. 4*block+3 of a sample at a step.
  constexpr HD Words words(uint32_t step, uint64_t sample, uint32_t block) const {
    return philox4x32_10({step, uint32_t(sample), uint32_t(sample >> 32), block}, key0, key1);
  }
};

// Uniform in [0, 1) from the top 24 bits: every value is exact in float.
constexpr HD float uniform_from(uint32_t word) { return float(word >> 8) * (1.0f / 16777216.0f); }

// Standard normal from two words (Box-Muller). The first uniform is taken from (0, 1] so that the logarithm is finite.
HD double normal_from(uint32_t a, uint32_t b) {
  const double u = (double(a) + 1.0) * (1.0 / 4294967296.0), v = double(b) * (1.0 / 4294967296.0);
  return std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v);
}

// Draws one after another from the coordinates (stream, step, sample): for code that asks for a data-dependent number of
// them, such as the augmentation of one image. Two equal sequences give equal draws.
class RandomSequence {
 public:
  RandomSequence(RandomStream stream, uint32_t step, uint64_t sample) : stream_(stream), step_(step), sample_(sample) {}
  uint32_t word() {
    if (used_ % 4 == 0) words_ = stream_.words(step_, sample_, used_ / 4);
    return words_[used_++ % 4];
  }
  double uniform() { return double(word()) * (1.0 / 4294967296.0); }                       // [0, 1)
  double uniform(double low, double high) { return low + (high - low) * uniform(); }
  uint32_t below(uint32_t n) { return uint32_t((uint64_t(word()) * n) >> 32); }            // 0 .. n-1
  bool chance(double p) { return uniform() < p; }
  double normal() { const uint32_t a = word(); return normal_from(a, word()); }

 private:
  RandomStream stream_;
  uint32_t step_, used_ = 0;
  uint64_t sample_;
  Words words_{};
};
