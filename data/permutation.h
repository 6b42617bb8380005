// permutation.h: the shuffled order of an epoch, one element at a time, so that resuming anywhere costs nothing.
#pragma once
#include <cstdint>

#include "engine/random.h"

// A bijection of [0, count), a pure function of (seed, epoch): a four-round Feistel network over the next power of
// four, walked until it lands below count (at most four steps on average). Over fewer than 256 numbers four rounds
// would be uneven, so small counts walk longer.
class Permutation {
 public:
  Permutation(uint64_t seed, uint32_t epoch, uint64_t count) : stream_(seed, "order"), epoch_(epoch), count_(count) {
    while ((uint64_t(1) << (2 * half_bits_)) < count) half_bits_++;
  }

  uint64_t operator[](uint64_t i) const {
    do i = scramble(i); while (i >= count_);
    return i;
  }

 private:
  uint64_t scramble(uint64_t i) const {
    const uint64_t mask = (uint64_t(1) << half_bits_) - 1;
    uint64_t left = i >> half_bits_, right = i & mask;
    for (uint32_t round = 0; round < 4; round++) {
      const uint64_t next = left ^ (stream_.words(epoch_, right, round)[0] & mask);
      left = right;
      right = next;
    }
    return left << half_bits_ | right;
  }

  RandomStream stream_;
  uint32_t epoch_;
  uint64_t count_;
  int half_bits_ = 4;
};
