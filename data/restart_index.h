// restart_index.h: where each restart interval of a repacked JPEG lies, so that only those a crop touches are decoded.
//
// A restart marker resets the decoder, so what lies between two of them can be decoded alone. Where the number of MCUs (the
// blocks of pixels that are coded together) in an interval divides those of a row, the intervals tile the picture, and any
// rectangle of tiles, with the header in front, is a JPEG of its own. The index stands in the file, in a segment APP9 that
// other programs skip:
//
//   "lipsgrad restarts\0" | u32 CRC-32 of the header without these four bytes | u32 CRC-32 of all behind the header |
//   the length of each interval without its marker, 7 bits a byte, low ones first, the top bit where more follow
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "data/decode.h"

struct RestartIndex {
  size_t header_end = 0;                      // where the coded picture begins
  size_t segment_begin = 0, segment_end = 0;  // of the index itself
  size_t size_field = 0;                      // of height and width in the frame header
  Size image;
  int tile_height = 0, tile_width = 0;        // pixels
  int down = 0, across = 0;                   // tiles; those at the right and bottom border may be smaller
  int horizontal = 1, vertical = 1;           // the largest sampling factors
  uint32_t data_checksum = 0;
  std::vector<size_t> begin;                  // [down * across + 1] offset of tile i; it ends 2 before begin[i + 1]
};

// Columns that decide the pixels of a region's. Where chroma is interpolated between columns, the outermost ones of what is decoded
// lack a neighbour, so there is one more on each side; and libjpeg interpolates only where there are three samples.
struct Columns {
  int left = 0, right = 0;
};
Columns needed_columns(const Box& region, int image_width, int horizontal_sampling);

// Reads a file's index. False when it has none; an Error with Exit::bad_data when the index or the header is damaged.
bool read_restart_index(std::span<const uint8_t> jpeg, RestartIndex& index);

// Tiles [top, bottom) x [left, right).
struct Tiles {
  int top = 0, bottom = 0, left = 0, right = 0;
};
// Those that decide the pixels of the region.
Tiles tiles_of(const RestartIndex& index, const Box& region);
// A JPEG of these tiles alone; its pixel (0, 0) is pixel (tile_height * top, tile_width * left) of the picture.
void join_tiles(std::span<const uint8_t> jpeg, const RestartIndex& index, const Tiles& tiles, std::vector<uint8_t>& out);

// The file with an index. It must have one scan, and restart intervals that divide the rows.
std::vector<uint8_t> with_restart_index(std::span<const uint8_t> jpeg);

// Whether the intervals lie where the index says: each marker of the coded picture is the one that must end its tile, and there is no other. A
// checksum can be forged, and an index that lies would give other pixels to a region than to the whole.
bool index_is_true(std::span<const uint8_t> jpeg, const RestartIndex& index);

// False when a byte of the coded picture is not what it was when the index was written.
bool picture_is_intact(std::span<const uint8_t> jpeg, const RestartIndex& index);
