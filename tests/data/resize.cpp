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
    resize(picture(h, w, channels), {oh, ow}, {0, 0, oh, ow}, interpolation, false, out.data(), size_t(ow) * channels);
    CHECK(fnv(out) == hash);
  }
  CHECK(cases == 80);
}

TEST_CASE("resize: a window is a cut from the whole") {
  Resizer resize;
  for (const auto kind : {Interpolation::bilinear, Interpolation::bicubic}) {
    for (const Size size : {Size{90, 120}, Size{23, 31}, Size{37, 53}}) {
      const Image image = picture(37, 53, 3);
      Bytes whole(size_t(size.height) * size.width * 3), part(10 * 20 * 3);
      resize(image, size, {0, 0, size.height, size.width}, kind, false, whole.data(), size_t(size.width) * 3);
      resize(image, size, {7, 5, 10, 20}, kind, false, part.data(), 20 * 3);
      for (int y = 0; y < 10; y++) {
        const uint8_t* row = &whole[(size_t(7 + y) * size.width + 5) * 3];
        CHECK(std::equal(row, row + 60, &part[size_t(y) * 60]));
      }
    }
  }
}

TEST_CASE("resize: mirrored means left to right") {
  Resizer resize;
  for (const Size size : {Size{90, 120}, Size{23, 31}, Size{37, 53}, Size{2, 9}}) {
    for (const Image& image : {picture(37, 53, 3), picture(37, 53, 1), picture(404, 4, 3)}) {
      const Box window{0, 3, 2, 6};
      const size_t stride = 6 * size_t(image.channels);
      Bytes plain(2 * stride), mirrored(2 * stride);
      resize(image, size, window, Interpolation::bicubic, false, plain.data(), stride);
      resize(image, size, window, Interpolation::bicubic, true, mirrored.data(), stride);
      for (int y = 0; y < 2; y++)
        for (int x = 0; x < 6; x++)
          for (int c = 0; c < image.channels; c++)
            CHECK(mirrored[y * stride + x * image.channels + c] == plain[y * stride + (5 - x) * image.channels + c]);
    }
  }
}

TEST_CASE("resize: hundreds of taps an output keep every bit") {
  // An even picture stays even, whatever the weights' rounding: their sum is 1 to within half a unit a tap.
  Resizer resize;
  Image image{1500, 3000, 1, Bytes(1500 * 3000, 201)};
  Bytes out(4);
  resize(image, {2, 2}, {0, 0, 2, 2}, Interpolation::bicubic, false, out.data(), 2);
  for (const uint8_t v : out) CHECK(v == 201);
}
