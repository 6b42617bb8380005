// contact_sheet.cpp: tiles on a dark ground; the letters are stb_easy_font's.
#include "train/contact_sheet.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#include <stb/stb_easy_font.h>
#pragma GCC diagnostic pop

namespace {

constexpr int gap = 4, line = 12;  // pixels between tiles, and for the text under each
constexpr uint8_t ground = 24, ink = 230, erased = 128;

}  // namespace

ContactSheet::ContactSheet(int count, int side) : side_(side), columns_(std::min(count, int(std::ceil(std::sqrt(double(count)))))) {
  const int rows = (count + columns_ - 1) / columns_;
  picture_ = {gap + rows * (side + line + gap), gap + columns_ * (side + gap), 3, {}};
  picture_.pixels.assign(size_t(picture_.height) * picture_.width * 3, ground);
}

void ContactSheet::add(const uint8_t* pixels, int channels, const std::string& text) {
  const int top = gap + used_ / columns_ * (side_ + line + gap), left = gap + used_ % columns_ * (side_ + gap);
  used_++;
  for (int y = 0; y < side_; y++) {
    uint8_t* out = &picture_.pixels[(size_t(top + y) * picture_.width + left) * 3];
    for (int i = 0; i < side_ * 3; i++) *out++ = channels == 3 ? *pixels++ : pixels[i / 3];
    if (channels == 1) pixels += side_;
  }
  write(top + side_ + 2, left, text);
}

void ContactSheet::write(int top, int left, std::string text) {
  for (char& c : text)
    if (c < ' ' || c > '~') c = '?';
  while (!text.empty() && stb_easy_font_width(text.data()) > side_) text.pop_back();
  struct Corner {
    float x, y, z;
    uint8_t colour[4];
  };
  std::vector<Corner> corners(text.size() * 270 / sizeof(Corner) * 4 + 4);
  const int quads = stb_easy_font_print(0, 0, text.data(), nullptr, corners.data(), int(corners.size() * sizeof(Corner)));
  for (int q = 0; q < quads; q++) {
    const Corner &from = corners[size_t(q) * 4], &to = corners[size_t(q) * 4 + 2];
    for (int y = int(from.y); y < int(to.y); y++)
      for (int x = int(from.x); x < std::min(int(to.x), side_); x++)
        std::memset(&picture_.pixels[(size_t(top + y) * picture_.width + left + x) * 3], ink, 3);
  }
}

std::vector<uint8_t> finished_pixels(const Batch& batch) {
  std::vector<uint8_t> own = batch.images;
  const size_t row = size_t(batch.width) * batch.channels, image = row * batch.height;
  for (size_t i = 0; i < batch.erase.size(); i++) {
    const EraseBox& box = batch.erase[i];
    const size_t of = i * size_t(batch.count) / batch.erase.size();
    for (int y = 0; y < box.height; y++)
      std::fill_n(&own[of * image + (box.top + y) * row + size_t(box.left) * batch.channels], size_t(box.width) * batch.channels, erased);
  }
  std::vector<uint8_t> mixed = own;
  const Mix& mix = batch.mix;
  for (int i = 0; i < batch.count; i++) {
    uint8_t* to = &mixed[size_t(i) * image];
    const uint8_t* partner = &own[size_t(batch.count - 1 - i) * image];
    if (mix.kind == Mix::mixup)
      for (size_t k = 0; k < image; k++) to[k] = uint8_t(std::lround(mix.lambda * to[k] + (1 - mix.lambda) * partner[k]));
    if (mix.kind == Mix::cutmix)
      for (int y = mix.top; y < mix.bottom; y++) {
        const size_t at = y * row + size_t(mix.left) * batch.channels;
        std::copy_n(partner + at, size_t(mix.right - mix.left) * batch.channels, to + at);
      }
  }
  return mixed;
}
