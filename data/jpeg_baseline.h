// jpeg_baseline.h: regions of the JPEGs that most pictures are: baseline, one scan, gray or YCbCr with chroma in full, half or quarter
// resolution. The pixels are libjpeg's, at a fraction of the time: what lies outside the region is only passed over, by several symbols
// at once; an indexed file (restart_index.h) is read from tile to tile.
#pragma once
#include <span>
#include <vector>

#include "data/decode.h"
#include "data/jpeg_huffman.h"
#include "data/restart_index.h"

struct jpeg_decompress_struct;

class BaselineReader {
 public:
  // Takes the tables of a header that libjpeg has read. False for a file of another kind.
  bool open(const jpeg_decompress_struct& header, const uint8_t* begin, const uint8_t* end);
  // False when the data are not what they must be, as far as they were read; the caller then asks libjpeg what is wrong with them.
  // index: of the file, a true one (index_is_true); null when it has none. out: [region.height, region.width, channels].
  bool read(const Box& region, int channels, const RestartIndex* index, const uint8_t* file, uint8_t* out);

 private:
  struct Component {
    int horizontal, vertical;    // blocks in an MCU
    int dc, ac;                  // tables
    int width, height;           // samples
    alignas(32) int32_t quanta[64];
    int predictor;
    std::vector<uint8_t> plane;  // the MCUs of the window
    int64_t stride;
    uint8_t* at(int row, int column) { return plane.data() + row * stride + margin + column; }
  };
  // MCUs.
  struct Window {
    int top, bottom, left, right;
  };
  static constexpr int margin = 32;

  Window window_of(const Box& region) const;
  void prepare_planes(const Window&);
  bool read_interval(BitReader& bits, int first, int count, const Window&, bool tiled);
  bool read_mcu(BitReader& bits, int row, int column);
  bool pass_mcu(BitReader& bits);
  void emit(const Box& region, const Window&, int channels, uint8_t* out);

  const uint8_t *begin_ = nullptr, *end_ = nullptr;
  int width_ = 0, height_ = 0, components_ = 0, interval_ = 0;
  int mcu_width_ = 0, mcu_height_ = 0, across_ = 0, down_ = 0;
  int blocks_ = 0;               // in an MCU
  int wanted_ = 0;               // components whose pixels are wanted
  Component component_[3];
  HuffmanTable dc_[4], ac_[4];
  std::vector<uint8_t> chroma_[2];   // a row at full width
};
