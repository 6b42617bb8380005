// make_jpeg.h: JPEGs of every kind that libjpeg writes, for the tests.
#pragma once
#include <bit>
#include <cstdio>
#include <jpeglib.h>

#include "helpers.h"

struct JpegSpec {
  std::string name;
  int components = 3;                      // 1 gray, 3 YCbCr, 4 CMYK
  std::vector<std::array<int, 2>> sampling = {{1, 1}, {1, 1}, {1, 1}};  // horizontal, vertical
  bool progressive = false;
  bool one_scan_each = false;              // components not interleaved
  bool ycck = false;
  int restart_interval = 0;                // MCUs
  int quality = 90;
  bool exif = false;                       // an APP1 that asks for a turn by 90 degrees
};

// A picture with edges, ramps and noise.
inline Bytes make_jpeg(const JpegSpec& spec, int height, int width, uint32_t seed = 1) {
  jpeg_compress_struct info;
  jpeg_error_mgr errors;
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char* out = nullptr;
  unsigned long length = 0;
  jpeg_mem_dest(&info, &out, &length);
  info.image_height = JDIMENSION(height);
  info.image_width = JDIMENSION(width);
  info.input_components = spec.components;
  info.in_color_space = spec.components == 1 ? JCS_GRAYSCALE : spec.components == 3 ? JCS_RGB : JCS_CMYK;
  jpeg_set_defaults(&info);
  if (spec.ycck) jpeg_set_colorspace(&info, JCS_YCCK);
  jpeg_set_quality(&info, spec.quality, TRUE);
  for (int c = 0; c < spec.components && c < int(spec.sampling.size()); c++) {
    info.comp_info[c].h_samp_factor = spec.sampling[c][0];
    info.comp_info[c].v_samp_factor = spec.sampling[c][1];
  }
  info.restart_interval = unsigned(spec.restart_interval);
  if (spec.progressive) jpeg_simple_progression(&info);
  std::vector<jpeg_scan_info> scans;
  if (spec.one_scan_each) {
    for (int c = 0; c < spec.components; c++) scans.push_back({1, {c}, 0, 63, 0, 0});
    info.scan_info = scans.data();
    info.num_scans = int(scans.size());
  }
  jpeg_start_compress(&info, TRUE);
  if (spec.exif) {
    static constexpr uint8_t turned[] = {'E', 'x', 'i', 'f', 0, 0, 'M', 'M', 0, 42, 0, 0, 0, 8, 0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0};
    jpeg_write_marker(&info, JPEG_APP0 + 1, turned, sizeof turned);
  }
  Bytes row(size_t(width) * spec.components);
  for (int y = 0; y < height; y++) {
    for (int x = 0; x < width; x++) {
      seed = seed * 1664525u + 1013904223u;
      const int edge = (x / 9 + y / 7) % 3 * 80;
      for (int c = 0; c < spec.components; c++)
        row[size_t(x) * spec.components + c] = uint8_t(std::clamp(edge + x * (c + 1) / 3 + int(seed >> (24 + c) & 31), 0, 255));
    }
    JSAMPROW pointer = row.data();
    jpeg_write_scanlines(&info, &pointer, 1);
  }
  jpeg_finish_compress(&info);
  jpeg_destroy_compress(&info);
  Bytes bytes(out, out + length);
  std::free(out);
  return bytes;
}

inline std::vector<JpegSpec> jpeg_kinds() {
  std::vector<JpegSpec> kinds = {
      {.name = "4:4:4"},
      {.name = "4:2:0", .sampling = {{2, 2}, {1, 1}, {1, 1}}},
      {.name = "4:2:2", .sampling = {{2, 1}, {1, 1}, {1, 1}}},
      {.name = "4:4:0", .sampling = {{1, 2}, {1, 1}, {1, 1}}},
      {.name = "4:1:1", .sampling = {{4, 1}, {1, 1}, {1, 1}}},
      {.name = "4:1:0", .sampling = {{4, 2}, {1, 1}, {1, 1}}},
      {.name = "1 x 4", .sampling = {{1, 4}, {1, 1}, {1, 1}}},
      {.name = "2 x 4", .sampling = {{2, 4}, {1, 1}, {1, 1}}},
      {.name = "chroma apart", .sampling = {{2, 2}, {1, 2}, {2, 1}}},
      {.name = "gray", .components = 1, .sampling = {{1, 1}}},
      {.name = "gray that says 2 x 2", .components = 1, .sampling = {{2, 2}}},
      {.name = "CMYK", .components = 4},
      {.name = "YCCK", .components = 4, .sampling = {{2, 2}, {1, 1}, {1, 1}, {2, 2}}, .ycck = true},
      {.name = "EXIF", .sampling = {{2, 2}, {1, 1}, {1, 1}}, .exif = true},
  };
  const size_t plain = kinds.size();
  for (size_t i = 0; i < plain; i++) {
    JpegSpec progressive = kinds[i], restarts = kinds[i], apart = kinds[i];
    progressive.name += ", progressive";
    progressive.progressive = true;
    kinds.push_back(progressive);
    restarts.name += ", restarts";
    restarts.restart_interval = 5;
    kinds.push_back(restarts);
    apart.name += ", a scan for each component";
    apart.one_scan_each = true;
    kinds.push_back(apart);
  }
  return kinds;
}

// A colour JPEG whose three components all say 2 x 2: twelve blocks in an MCU, which libjpeg refuses. Block (row, column) of 8 x 8 pixels
// is gray of the level that `levels` gives, within -60 .. 60 of 128.
inline Bytes twelve_blocks(const std::vector<std::vector<int>>& levels) {
  const int down = int(levels.size()), across = int(levels[0].size());
  Bytes out;
  const auto add = [&](std::initializer_list<int> values) {
    for (const int value : values) out.push_back(uint8_t(value));
  };
  add({0xFF, 0xD8, 0xFF, 0xDB, 0, 67, 0});
  out.resize(out.size() + 64, 8);   // one step of the constant part is one level
  add({0xFF, 0xC0, 0, 17, 8, 0, 8 * down, 0, 8 * across, 3, 1, 0x22, 0, 2, 0x22, 0, 3, 0x22, 0});
  add({0xFF, 0xC4, 0, 19 + 8, 0x00, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7});   // sizes 0 .. 7: 4 bits
  add({0xFF, 0xC4, 0, 19 + 1, 0x10, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0});                        // end of block: 1 bit
  add({0xFF, 0xDA, 0, 12, 3, 1, 0, 2, 0, 3, 0, 0, 63, 0});
  uint32_t bits = 0;
  int used = 0;
  const auto put = [&](uint32_t value, int length) {
    for (int i = length - 1; i >= 0; i--) {
      bits = bits << 1 | (value >> i & 1);
      if (++used % 8 != 0) continue;
      out.push_back(uint8_t(bits));
      if (uint8_t(bits) == 0xFF) out.push_back(0);
    }
  };
  int before = 0;
  const auto luma = [&](int level) {
    const int step = level - before, size = step == 0 ? 0 : int(std::bit_width(unsigned(std::abs(step))));
    before = level;
    put(uint32_t(size), 4);
    put(uint32_t(step < 0 ? step - 1 : step) & ((1u << size) - 1), size);
    put(0, 1);
  };
  for (int y = 0; y < down; y += 2)
    for (int x = 0; x < across; x += 2) {
      for (int i = 0; i < 4; i++) luma(levels[size_t(y + i / 2)][size_t(x + i % 2)]);
      for (int i = 0; i < 8; i++) put(0, 5);   // colourless
    }
  while (used % 8 != 0) put(1, 1);
  add({0xFF, 0xD9});
  return out;
}
