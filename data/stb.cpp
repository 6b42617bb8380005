// stb.cpp: stb_image, compiled for PNG and JPEG only and kept to this file.
#include "data/stb.h"

#include <cstdlib>
#include <memory>

#include "engine/check.h"

namespace {

// stb_image unpacks whatever the compressed data hold, whatever the header says: a bound on each allocation stops a
// bomb. Set for the image at hand before stb_image is called.
thread_local size_t allocation_limit = 0;

void* bounded_malloc(size_t n) { return n <= allocation_limit ? std::malloc(n) : nullptr; }
void* bounded_realloc(void* p, size_t n) { return n <= allocation_limit ? std::realloc(p, n) : nullptr; }

}  // namespace

#define STBI_ONLY_PNG
#define STBI_ONLY_JPEG
#define STBI_NO_STDIO
#define STB_IMAGE_STATIC
#define STB_IMAGE_IMPLEMENTATION
#define STBI_MAX_DIMENSIONS max_image_side
#define STBI_MALLOC bounded_malloc
#define STBI_REALLOC bounded_realloc
#define STBI_FREE std::free
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#include <stb/stb_image.h>
#pragma GCC diagnostic pop

Image read_by_stb(std::span<const uint8_t> bytes, size_t memory_limit, const char* what) {
  allocation_limit = memory_limit;
  Image image;
  const std::unique_ptr<uint8_t, decltype(&std::free)> pixels(
      stbi_load_from_memory(bytes.data(), int(bytes.size()), &image.width, &image.height, &image.channels, 0), std::free);
  if (!pixels) fail(Exit::bad_data, what, ": ", stbi_failure_reason());
  image.pixels.assign(pixels.get(), pixels.get() + size_t(image.width) * image.height * image.channels);
  return image;
}
