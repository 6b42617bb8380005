// stb.h: stb_image, which decodes PNG, and the few JPEGs that libjpeg cannot.
//
// The packaged version has known defects. Callers check headers, sizes and whatever those defects need before
// they call it: png.cpp and plain_jpeg.cpp.
#pragma once
#include <span>
#include <string>

#include "data/decode.h"

// The whole picture, in the channels the file has, 8 bits each. No allocation exceeds `memory_limit` bytes. `what` names the format in
// errors, which have Exit::bad_data.
Image read_by_stb(std::span<const uint8_t> bytes, size_t memory_limit, const char* what);
