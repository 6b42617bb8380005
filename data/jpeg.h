// jpeg.h: libjpeg-turbo behind exceptions: a reader that is used again and again, and a writer of grayscale pictures.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "data/decode.h"

class JpegReader {
 public:
  JpegReader();
  ~JpegReader();
  Size open(std::span<const uint8_t> bytes);
  void read(const Box& region, int channels, uint8_t* out);  // out: [region.height, region.width, channels]
  int warnings() const;

  struct State;

 private:
  std::unique_ptr<State> state_;
};

// pixels: [height, width]. The same pixels give the same bytes.
std::vector<uint8_t> encode_gray_jpeg(const uint8_t* pixels, int height, int width, int quality);
