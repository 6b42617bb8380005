// color_ops.h: what Pillow's ImageOps and ImageEnhance, and its HSV, make of the colours of RGB pixels, equal to the last bit.
//
// rgb is [pixels, 3] and changed in place. Whoever looks at neighbours is in filters.h, whoever moves pixels in affine.h.
#pragma once
#include <algorithm>
#include <cstdint>

// degenerate + factor * (value - degenerate), clamped and cut off, never rounded: Image.blend in f32.
inline uint8_t blend(int degenerate, int value, float factor) {
  const float mixed = float(degenerate) + factor * float(value - degenerate);
  return uint8_t(int(std::min(std::max(mixed, 0.0f), 255.0f)));
}

// Luma as Pillow's convert("L") has it.
inline int gray_of(int red, int green, int blue) { return (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16; }

void autocontrast(uint8_t* rgb, int64_t pixels);                       // each channel stretched to 0 .. 255
void equalize(uint8_t* rgb, int64_t pixels);                           // each channel's histogram made even
void invert(uint8_t* rgb, int64_t pixels);                             // 255 - v
void posterize(uint8_t* rgb, int64_t pixels, int bits);                // the `bits` highest of 8 are kept
void solarize(uint8_t* rgb, int64_t pixels, int threshold);            // 255 - v from the threshold on, 0 .. 256
void solarize_add(uint8_t* rgb, int64_t pixels, int add);              // min(255, v + add) below 128
void brightness(uint8_t* rgb, int64_t pixels, float factor);           // blended with black
void contrast(uint8_t* rgb, int64_t pixels, float factor);             // blended with the mean gray of the whole image
void color(uint8_t* rgb, int64_t pixels, float factor);                // blended with its own gray; 0: gray
// In HSV of bytes, whose rounding shows even where nothing is shifted: hue + trunc(255 * turn), modulo 256. turn: from -0.5 to 0.5.
void shift_hue(uint8_t* rgb, int64_t pixels, double turn);
