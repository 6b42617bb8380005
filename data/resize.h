// resize.h: antialiased bilinear and bicubic resizing, equal to Pillow's to the last bit.
#pragma once
#include <cstdint>
#include <vector>

#include "data/decode.h"
#include "data/resize_axis.h"

// Part of a picture whose edges may lie inside pixels.
struct RealBox {
  double top, left, height, width;
};

class Resizer {
 public:
  // Resizes `source` to `size` and keeps only `window` of the result, which is all that is computed; `mirrored` turns the
  // window left to right. out: [window.height, window.width, channels], its rows `stride` bytes apart.
  void operator()(const Image& source, Size size, const Box& window, Interpolation, bool mirrored, uint8_t* out, size_t stride);
  // The same with `part` of the source as what is resized: Pillow's resize with a box.
  void operator()(const Image& source, const RealBox& part, Size size, const Box& window, Interpolation, bool mirrored, uint8_t* out, size_t stride);

 private:
  void columns_first(const Image& source, uint8_t* out, size_t stride);
  void rows_first(const Image& source, const RealBox& part, Size size, const Box& window, Interpolation, bool mirrored, uint8_t* out, size_t stride);

  ResizeAxis columns_, rows_;
  std::vector<uint8_t> between_, last_;    // rows after the first pass; the last rows of the source, which must not be read beyond
  std::vector<const uint8_t*> taps_;       // the rows that one output sums
};
