// Resizing: Pillow's bytes exactly, and a window of a resized image is a cut from the whole.
#include "helpers.h"

#include "data/resize.h"

TEST_CASE("resize: equal to Pillow to the last bit") {
  std::ifstream file(SOURCE_DIR "/tests/golden/resize.txt");
  std::string kind, hash;
  Resizer resize;
  int cases = 0;
  for (int channels, h, w, oh, ow; file >> kind >> channels >> h >> w >> oh >> ow >> hash; cases++) {
    INFO(kind, " ", channels, ": ", h, " x ", w, " to ", oh, " x ", ow);
    const auto interpolation = kind == "bicubic" ? Interpolation::bicubic : Interpolation::bilinear;
    Bytes out(size_t(oh) * ow * channels);
    resize(picture(h, w, channels), {oh, ow}, {0, 0, oh, ow}, interpolation, out.data(), size_t(ow) * channels);
    CHECK(fnv(out) == hash);
  }
  CHECK(cases == 72);
}

TEST_CASE("resize: a window is a cut from the whole") {
  Resizer resize;
  for (const auto kind : {Interpolation::bilinear, Interpolation::bicubic}) {
    for (const Size size : {Size{90, 120}, Size{23, 31}, Size{37, 53}}) {
      const Image image = picture(37, 53, 3);
      Bytes whole(size_t(size.height) * size.width * 3), part(10 * 20 * 3);
      resize(image, size, {0, 0, size.height, size.width}, kind, whole.data(), size_t(size.width) * 3);
      resize(image, size, {7, 5, 10, 20}, kind, part.data(), 20 * 3);
      for (int y = 0; y < 10; y++) {
        const uint8_t* row = &whole[(size_t(7 + y) * size.width + 5) * 3];
        CHECK(std::equal(row, row + 60, &part[size_t(y) * 60]));
      }
    }
  }
}
