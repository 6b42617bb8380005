// resize.h: antialiased bilinear and bicubic resizing, equal to Pillow's to the last bit.
#pragma once
#include <cstdint>
#include <vector>

#include "data/decode.h"

enum class Interpolation { bilinear, bicubic };

class Resizer {
 public:
  // Resizes `source` to `size` and keeps only `window` of the result, which is all that is computed.
  // out: [window.height, window.width, channels], its rows `stride` bytes apart.
  void operator()(const Image& source, Size size, const Box& window, Interpolation, uint8_t* out, size_t stride);

  // What each output of one axis sums: taps [first, first + count) with fixed-point weights.
  struct Axis {
    int longest = 0;               // most taps of any output
    std::vector<int> first, count;  // [outputs]
    std::vector<int32_t> weights;   // [outputs, longest]
  };

 private:
  Axis columns_, rows_;
  std::vector<uint8_t> between_;       // after the first pass
  std::vector<int32_t> block_, sums_;  // a few rows of the first pass, one of the second
};
