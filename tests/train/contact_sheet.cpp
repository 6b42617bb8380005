// contact_sheet: images of a batch in one picture, finished as the network gets them.
#include "train/contact_sheet.h"

#include <doctest/doctest.h>

#include "data/png.h"

TEST_CASE("contact sheet: images stand in rows, with ink under them, and the PNG gives them back") {
  ContactSheet sheet(3, 40);
  const std::vector<uint8_t> white(40 * 40, 255), red = [] {
    std::vector<uint8_t> pixels(40 * 40 * 3, 0);
    for (size_t i = 0; i < pixels.size(); i += 3) pixels[i] = 200;
    return pixels;
  }();
  sheet.add(white.data(), 1, "0");
  sheet.add(red.data(), 3, "a name that is far too long for its image");
  sheet.add(white.data(), 1, "");
  const Image& all = sheet.picture();
  const auto at = [&](int y, int x) { return &all.pixels[(size_t(y) * all.width + x) * 3]; };
  CHECK(all.width == 4 + 2 * 44);
  CHECK(all.height == 4 + 2 * 56);
  CHECK(at(4, 4)[1] == 255);
  CHECK(at(10, 60)[0] == 200);
  CHECK(at(10, 60)[1] == 0);
  CHECK(at(60, 4)[2] == 255);
  const auto ink_between = [&](int left, int right) {
    int count = 0;
    for (int y = 44; y < 56; y++)
      for (int x = left; x < right; x++) count += at(y, x)[0] > 100;
    return count;
  };
  CHECK(ink_between(4, 44) > 5);
  CHECK(ink_between(48, 88) > 30);
  CHECK(ink_between(88, 92) == 0);

  const std::vector<uint8_t> png = encode_png(all);
  const Size size = read_png_header(png);
  CHECK(size.height == all.height);
  CHECK(read_png(png).pixels == all.pixels);
}

TEST_CASE("contact sheet: boxes are erased first, then images are mixed with the one at the other end of the batch") {
  Batch batch{.count = 2, .height = 2, .width = 2, .channels = 1};
  batch.images = {10, 10, 10, 10, 110, 110, 110, 110};
  batch.erase = {{0, 0, 1, 1}, {}};
  CHECK(finished_pixels(batch) == std::vector<uint8_t>{128, 10, 10, 10, 110, 110, 110, 110});
  batch.mix = {.kind = Mix::mixup, .lambda = 0.75f};
  CHECK(finished_pixels(batch) == std::vector<uint8_t>{124, 35, 35, 35, 115, 85, 85, 85});
  batch.mix = {.kind = Mix::cutmix, .lambda = 0.5f, .top = 0, .left = 0, .bottom = 2, .right = 1};
  CHECK(finished_pixels(batch) == std::vector<uint8_t>{110, 10, 110, 10, 128, 110, 10, 110});
}
