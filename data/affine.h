// affine.h: Pillow's Image.transform(AFFINE), equal to the last bit. RGB, [height, width, 3].
#pragma once
#include <array>
#include <cstdint>

#include "data/resize.h"

// Output pixel (x, y) comes from (a (x+1/2) + b (y+1/2) + c, d (x+1/2) + e (y+1/2) + f).
struct AffineMap {
  double a = 1, b = 0, c = 0, d = 0, e = 1, f = 0;
};
AffineMap rotation(double degrees, int height, int width);   // counter-clockwise about the middle

using Colour = std::array<uint8_t, 3>;

// Bilinear, or the cubic with a = -1, which is not that of resizing; `fill` where the map leaves the image. `in` must be
// readable for `affine_margin` bytes past its end.
constexpr int affine_margin = 13;
void transform(const uint8_t* in, int height, int width, const AffineMap&, Interpolation, Colour fill, uint8_t* out);
