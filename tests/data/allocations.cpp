// How often memory is asked for on the way from a file to its pixels: a constant, however many images there are.
#include <new>

#include "make_jpeg.h"

#include "data/augment.h"
#include "data/repack.h"

#ifndef __SANITIZE_ADDRESS__   // the sanitizers have an operator new of their own
#ifndef __SANITIZE_THREAD__

namespace {

thread_local int64_t allocations = 0;

void* counted(size_t bytes) {
  allocations++;
  if (void* p = std::malloc(bytes)) return p;
  throw std::bad_alloc();
}

}  // namespace

void* operator new(size_t bytes) { return counted(bytes); }
void* operator new[](size_t bytes) { return counted(bytes); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
void operator delete[](void* p, size_t) noexcept { std::free(p); }

TEST_CASE("augment: once its buffers have grown, a renderer allocates nothing for a JPEG") {
  AugmentConfig config;
  config.image_size = 48;
  config.color_jitter = 0.4;
  config.hue = 0.1;
  config.auto_augment = parse_auto_augment("rand-m9-mstd0.5-inc1");
  for (const JpegSpec& kind : jpeg_kinds()) {
    if (kind.one_scan_each || kind.progressive) continue;
    const Bytes plain = make_jpeg(kind, 96, 128);
    const auto repacked = kind.components == 4 ? std::nullopt : repack_jpeg(plain, 4);
    for (const Bytes& file : {plain, repacked.value_or(plain)}) {
      CAPTURE(kind.name);
      Renderer renderer(config);
      Bytes out(48 * 48 * 3);
      const auto render = [&](uint64_t begin, uint64_t end) {
        const int64_t before = allocations;
        for (uint64_t i = begin; i < end; i++) renderer.training(file, {RandomStream(1, "allocations"), 0, i}, out.data());
        return allocations - before;
      };
      CHECK(render(0, 400) > 0);
      // A buffer may still find a larger crop now and then.
      const int64_t later = render(400, 600);
      CHECK_MESSAGE(later <= 10, later, " in 200 images");
    }
  }
}

#endif
#endif
