// png.h: PNG pixels by stb_image, behind our own check of the header, the chunk checksums and the memory it may take; and PNG files by
// stb_image_write.
#pragma once
#include <span>

#include "data/decode.h"

Size read_png_header(std::span<const uint8_t> bytes);
Image read_png(std::span<const uint8_t> bytes);  // 1, 2, 3 or 4 channels as the file has them, 8 bits each
std::vector<uint8_t> encode_png(const Image& image);
