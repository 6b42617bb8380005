// jpeg.h: libjpeg-turbo behind exceptions: a reader that is used again and again, and a writer of grayscale pictures.
//
// A region costs the entropy-coded data down to its last row, and the transforms of its own pixels. In a repacked file (restart_index.h)
// it costs the tiles it touches. Its pixels are those of the whole picture, to the last bit. What jpeg_baseline.h can read it reads, in
// less time and to the same pixels; libjpeg reads the rest, and all that is damaged.
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
  void read(const Box& region, int channels, uint8_t* out);  // out: [region.height, region.width, channels]; once for each open()
  // With a shrink of 2, 4 or 8 the region is one of the picture whose sides are divided by it, rounded up, which libjpeg transforms at that
  // size at once; only where can_shrink().
  void read_by_libjpeg(const Box& region, int channels, uint8_t* out, int shrink = 1);
  bool can_shrink() const;
  int warnings() const;
  // After read() failed: libjpeg lacks what the file needs, which does not make it damaged.
  bool lacks_support() const;

  struct State;

 private:
  std::unique_ptr<State> state_;
};

// pixels: [height, width]. The same pixels give the same bytes.
std::vector<uint8_t> encode_gray_jpeg(const uint8_t* pixels, int height, int width, int quality);
