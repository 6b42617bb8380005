// jpeg_pixels.h: what follows the coefficients of a JPEG: the inverse DCT, chroma between its samples, colours. Integer arithmetic, the
// same to the last bit as libjpeg's "islow" DCT, "fancy" upsampling and colour conversion.
#pragma once
#include <cstdint>

// out: [8, 8], its rows `stride` apart. block: 64 coefficients, quanta: what they are multiplied by, both in natural order. Behind
// `last` in the zigzag there are only zeros. quanta: at most 255. False for a block of no picture, which libjpeg's 16 bits cannot hold: what
// it makes of that depends on how it was built.
bool inverse_dct(const int16_t* block, const int32_t* quanta, int last, uint8_t* out, int64_t stride);

// out: [2 * count]; each sample gives two pixels, 3/4 of its own and 1/4 of the neighbour's, so in[-1] and in[count] count. It goes by
// sixteens: in is read to one sample behind the last sixteen, out written to their end.
void widen(const uint8_t* in, int count, uint8_t* out);
// The same of 3/4 of the row `near` and 1/4 of the row `far`, rounded once.
void widen_between(const uint8_t* near, const uint8_t* far, int count, uint8_t* out);

// out: [width, 3]. The others are read up to the next thirty-second pixel.
void to_rgb(const uint8_t* y, const uint8_t* cb, const uint8_t* cr, int width, uint8_t* out);
