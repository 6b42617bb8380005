// filters.h: Pillow's filters that look at a pixel's neighbours, equal to the last bit. RGB, [height, width, 3].
#pragma once
#include <cstdint>
#include <vector>

// ImageEnhance.Sharpness: out = blended with the image smoothed by 3 x 3; factor above 1 sharpens. The frame is not smoothed.
void sharpness(const uint8_t* in, int height, int width, float factor, uint8_t* out);

// ImageFilter.GaussianBlur: three box filters along the rows, then three along the columns, each rounded to u8.
void gaussian_blur(uint8_t* rgb, int height, int width, double radius, std::vector<uint8_t>& scratch);
