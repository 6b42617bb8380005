// encode_png.cpp: stb_image_write, kept to this file.
#include "data/png.h"
#include "engine/check.h"

#define STBI_WRITE_NO_STDIO
#define STB_IMAGE_WRITE_STATIC
#define STB_IMAGE_WRITE_IMPLEMENTATION
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#include <stb/stb_image_write.h>
#pragma GCC diagnostic pop

std::vector<uint8_t> encode_png(const Image& image) {
  std::vector<uint8_t> out;
  const auto append = [](void* to, void* bytes, int count) {
    const uint8_t* begin = static_cast<const uint8_t*>(bytes);
    static_cast<std::vector<uint8_t>*>(to)->insert(static_cast<std::vector<uint8_t>*>(to)->end(), begin, begin + count);
  };
  const int stride = image.width * image.channels;
  const int done = stbi_write_png_to_func(append, &out, image.width, image.height, image.channels, image.pixels.data(), stride);
  check(done != 0, "[encode_png] a picture of ", image.width, " x ", image.height, " must be small enough for the encoder");
  return out;
}
