// decode.h: image bytes to u8 pixels. What the bytes are is read from the bytes, never from a file's name.
//
// JPEG (libjpeg-turbo: exact integer DCT, smooth chroma upsampling, so the pixels are Pillow's; stb_image for the few that it lacks support
// for), PNG (stb_image), PGM (as IDX datasets give it). Any depth comes out as 8 bits; alpha is dropped; CMYK is converted as Pillow does; EXIF
// orientation is ignored, as torchvision ignores it. Damage is an Error with Exit::bad_data; it never costs more than
// this image.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/box.h"

struct Image {
  int height = 0, width = 0, channels = 0;
  std::vector<uint8_t> pixels;  // [height, width, channels]
};

struct Size {
  int height = 0, width = 0;
};

enum class ImageFormat { unknown, jpeg, png, pgm };
ImageFormat image_format(std::span<const uint8_t> bytes);

// What an image may claim before anything is allocated for it.
constexpr int max_image_side = 65500;
constexpr int64_t max_image_pixels = 100'000'000;
constexpr int64_t max_pixels_per_byte = 2000;  // an honest JPEG stays under a few hundred
constexpr int max_jpeg_scans = 100;            // each scan of a progressive file costs a pass over the whole picture

// One thread's decoder, made once and used for one image after another.
class Decoder {
 public:
  Decoder();
  ~Decoder();
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  // Reads the header, so that a crop can be chosen before a pixel is decoded. The bytes must live until read().
  Size open(std::span<const uint8_t> bytes);
  // The region of the opened image, in 1 or 3 channels. Once for each open().
  void read(const Box& region, int channels, Image& out) { read(region, channels, 1, out); }
  // Where can_shrink(), by 2, 4 or 8: the region of the picture whose sides are divided by `shrink`, rounded up. A JPEG is transformed at
  // that size at once, which takes less time; a pixel is about the mean of those it stands for.
  void read(const Box& region, int channels, int shrink, Image& out);
  bool can_shrink() const;
  // Harmless irregularities of the last image, such as stray bytes between its segments.
  int warnings() const;

  struct State;

 private:
  std::unique_ptr<State> state_;
};
