// resize.h: antialiased bilinear and bicubic resizing, equal to Pillow's to the last bit.
#pragma once
#include <cstdint>
#include <vector>

#include "data/decode.h"

enum class Interpolation { bilinear, bicubic };

class Resizer {
 public:
  // Resizes `source` to `size` and keeps only `window` of the result, which is all that is computed; `mirrored` turns the
  // window left to right. out: [window.height, window.width, channels], its rows `stride` bytes apart.
  void operator()(const Image& source, Size size, const Box& window, Interpolation, bool mirrored, uint8_t* out, size_t stride);

  // What each output of one axis sums: taps [first, first + count). A weight of 22 bits behind the point is
  // high * 2^12 + low: each part's sum over a few taps is exact in f32.
  struct Axis {
    int longest = 0;              // most taps of any output
    std::vector<int> first, count;  // [outputs]
    std::vector<float> high, low;   // [outputs, longest]
  };

 private:
  void columns_first(const Image& source, uint8_t* out, size_t stride);
  void rows_first(const Image& source, Size size, const Box& window, Interpolation, bool mirrored, uint8_t* out, size_t stride);

  Axis columns_, rows_;
  std::vector<double> weights_;
  std::vector<float> block_, between_;   // 16 rows of the source, turned; rows after the first pass
  std::vector<uint8_t> turned_;          // 16 rows after the first pass, still turned
};
