// plain_jpeg.h: JPEGs that libjpeg cannot decode although nothing is wrong with them: more than ten blocks in an MCU, as when all three
// colours say 2 x 2.
#pragma once
#include <span>

#include "data/decode.h"

// The whole picture by stb_image, whose pixels may be a few levels away from libjpeg's. What its known defects touch is refused with
// Exit::bad_data before it is called: only one baseline scan of 8 bits over components that are sampled alike, all tables present, with
// its end mark, is taken.
Image read_plain_jpeg(std::span<const uint8_t> bytes, const Size& size);
