// jpeg_baseline.cpp: from MCU to MCU; then from the planes of the components to pixels.
#include "data/jpeg_baseline.h"

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstring>

#include <jpeglib.h>

#include "data/jpeg_pixels.h"

namespace {

constexpr int most_blocks = 6;             // in an MCU: 2 x 2 of luma, 1 of each chroma
constexpr int64_t most_pixels = 1 << 24;   // of a region whose planes are kept; libjpeg needs a few rows only

int divided_up(int a, int b) { return (a + b - 1) / b; }

bool set_table(HuffmanTable& table, const JHUFF_TBL* from, bool dc) {
  if (!from) return false;
  HuffmanCode code;
  std::copy_n(from->bits, 17, code.lengths.begin());
  std::copy_n(from->huffval, 256, code.symbols.begin());
  return table.set(code, dc);
}

}  // namespace

bool BaselineReader::open(const jpeg_decompress_struct& header, const uint8_t* begin, const uint8_t* end) {
  const int count = header.num_components;
  const bool gray = count == 1 && header.jpeg_color_space == JCS_GRAYSCALE;
  const bool colour = count == 3 && header.jpeg_color_space == JCS_YCbCr && header.comps_in_scan == 3;
  if (header.progressive_mode || header.arith_code || header.data_precision != 8 || !(gray || colour)) return false;
  components_ = count;
  begin_ = begin, end_ = end;
  width_ = int(header.image_width), height_ = int(header.image_height), interval_ = int(header.restart_interval);
  const int horizontal = gray ? 1 : header.max_h_samp_factor, vertical = gray ? 1 : header.max_v_samp_factor;
  if (horizontal > 2 || vertical > horizontal) return false;
  mcu_width_ = 8 * horizontal, mcu_height_ = 8 * vertical;
  blocks_ = horizontal * vertical + count - 1;
  across_ = divided_up(width_, mcu_width_), down_ = divided_up(height_, mcu_height_);

  for (int c = 0; c < count; c++) {
    const jpeg_component_info& from = *header.cur_comp_info[c];
    Component& to = component_[c];
    // libjpeg looks at these numbers only when it begins to decode.
    if (from.component_index != c || from.quant_tbl_no >= NUM_QUANT_TBLS || !header.quant_tbl_ptrs[from.quant_tbl_no]) return false;
    if (from.dc_tbl_no >= NUM_HUFF_TBLS || from.ac_tbl_no >= NUM_HUFF_TBLS) return false;
    to.horizontal = gray ? 1 : from.h_samp_factor, to.vertical = gray ? 1 : from.v_samp_factor;
    if (c == 0 ? to.horizontal != horizontal || to.vertical != vertical : to.horizontal != 1 || to.vertical != 1) return false;
    to.width = divided_up(width_ * to.horizontal, horizontal), to.height = divided_up(height_ * to.vertical, vertical);
    // libjpeg interpolates only between three samples or more.
    if (to.horizontal < horizontal && to.width < 3) return false;
    to.dc = from.dc_tbl_no, to.ac = from.ac_tbl_no;
    const JQUANT_TBL& quanta = *header.quant_tbl_ptrs[from.quant_tbl_no];
    std::copy_n(quanta.quantval, 64, to.quanta);
    if (*std::max_element(to.quanta, to.quanta + 64) > 255) return false;
    if (!set_table(dc_[to.dc], header.dc_huff_tbl_ptrs[to.dc], true)) return false;
    if (!set_table(ac_[to.ac], header.ac_huff_tbl_ptrs[to.ac], false)) return false;
  }
  return true;
}

BaselineReader::Window BaselineReader::window_of(const Box& region) const {
  const Columns columns = needed_columns(region, width_, mcu_width_ / 8);
  const int beyond = mcu_height_ > 8 ? 1 : 0;   // rows between which chroma is interpolated
  return {std::max(0, region.top - beyond) / mcu_height_, std::min(down_, divided_up(region.top + region.height + beyond, mcu_height_)),
          columns.left / mcu_width_, divided_up(columns.right, mcu_width_)};
}

// First all numbers, then all transforms: one that follows at once would wait for the last numbers to arrive in memory.
bool BaselineReader::read_mcu(BitReader& bits, int row, int column) {
  alignas(32) int16_t blocks[most_blocks][64];
  int last[most_blocks];
  std::memset(blocks, 0, size_t(blocks_) * sizeof blocks[0]);
  for (int c = 0, b = 0; c < components_; c++) {
    Component& component = component_[c];
    const HuffmanTable &dc = dc_[component.dc], &ac = ac_[component.ac];
    for (int i = component.vertical * component.horizontal; i > 0; i--, b++) {
      const bool whole = c < wanted_ ? HuffmanTable::read_block(dc, ac, bits, component.predictor, blocks[b], last[b])
                                     : HuffmanTable::pass_block(dc, ac, bits, component.predictor);
      if (!whole) return false;
    }
  }
  for (int c = 0, b = 0; c < wanted_; c++) {
    Component& component = component_[c];
    for (int v = 0; v < component.vertical; v++)
      for (int h = 0; h < component.horizontal; h++, b++) {
        uint8_t* pixels = component.at((row * component.vertical + v) * 8, (column * component.horizontal + h) * 8);
        if (!inverse_dct(blocks[b], component.quanta, last[b], pixels, component.stride)) return false;
      }
  }
  return true;
}

bool BaselineReader::pass_mcu(BitReader& bits) {
  for (int c = 0; c < components_; c++) {
    Component& component = component_[c];
    const HuffmanTable &dc = dc_[component.dc], &ac = ac_[component.ac];
    for (int i = component.vertical * component.horizontal; i > 0; i--)
      if (!HuffmanTable::pass_block(dc, ac, bits, component.predictor)) return false;
  }
  return true;
}

// As many of the `count` MCUs from `first` on as the window needs: rows to their end, as libjpeg reads them, tiles to the window's.
bool BaselineReader::read_interval(BitReader& bits, int first, int count, const Window& window, bool tiled) {
  for (Component& component : component_) component.predictor = 0;
  for (int i = first, row = first / across_, column = first % across_; i < first + count; i++) {
    if (tiled && column >= window.right) return !bits.overran();
    if (row == window.bottom && row < down_) return !bits.overran();
    const bool inside = row >= window.top && row < window.bottom && column >= window.left && column < window.right;
    if (!(inside ? read_mcu(bits, row - window.top, column - window.left) : pass_mcu(bits))) return false;
    if (++column < across_) continue;
    column = 0, row++;
    if (bits.overran()) return false;   // or a broken file would be zeros to its end
  }
  return bits.at_end();
}

bool BaselineReader::read(const Box& region, int channels, const RestartIndex* index, const uint8_t* file, uint8_t* out) {
  const Window window = window_of(region);
  const int64_t pixels = int64_t(window.bottom - window.top) * (window.right - window.left) * mcu_width_ * mcu_height_;
  if (pixels > most_pixels) return false;
  if (index && (index->across * interval_ != across_ || index->down != down_)) return false;
  wanted_ = channels == 1 ? 1 : components_;
  prepare_planes(window);
  if (index) {
    for (int row = window.top; row < window.bottom; row++)
      for (int column = window.left / interval_; column * interval_ < window.right; column++) {
        const size_t tile = size_t(row) * size_t(index->across) + size_t(column);
        BitReader bits(file + index->begin[tile], file + index->begin[tile + 1] - 2);
        if (!read_interval(bits, row * across_ + column * interval_, interval_, window, true)) return false;
      }
  } else {
    const int total = across_ * down_, length = interval_ > 0 ? interval_ : total;
    const uint8_t* at = begin_;
    for (int first = 0, number = 0; first < window.bottom * across_; first += length, number++) {
      if (first > 0) {
        if (end_ - at < 2 || at[0] != 0xFF || at[1] != 0xD0 + (number - 1) % 8) return false;
        at += 2;
      }
      BitReader bits(at, end_);
      if (!read_interval(bits, first, std::min(length, total - first), window, false)) return false;
      at = bits.place();
    }
    if (window.bottom == down_ && (end_ - at < 2 || at[0] != 0xFF || at[1] != 0xD9)) return false;
  }
  emit(region, window, channels, out);
  return true;
}

void BaselineReader::prepare_planes(const Window& window) {
  for (int c = 0; c < wanted_; c++) {
    Component& component = component_[c];
    component.stride = (window.right - window.left) * component.horizontal * 8 + 2 * margin;
    const size_t size = size_t(component.stride) * size_t(window.bottom - window.top) * size_t(component.vertical) * 8;
    if (component.plane.size() < size) component.plane.resize(size);
  }
}

void BaselineReader::emit(const Box& region, const Window& window, int channels, uint8_t* out) {
  const int left = region.left - window.left * mcu_width_;
  const bool gray = components_ == 1;
  if (channels == 1 || gray) {
    for (int y = 0; y < region.height; y++, out += int64_t(region.width) * channels) {
      const uint8_t* luma = component_[0].at(region.top + y - window.top * mcu_height_, left);
      if (channels == 1) std::copy_n(luma, region.width, out);
      else for (int x = 0; x < region.width; x++) std::fill_n(out + 3 * x, 3, luma[x]);
    }
    return;
  }
  const int wide = mcu_width_ / 8, high = mcu_height_ / 8;
  const int from = left / wide, samples = (left + region.width - 1) / wide + 1 - from;
  if (wide > 1)
    for (int c = 1; c < 3; c++) {
      Component& component = component_[c];
      chroma_[c - 1].resize(size_t(samples) * 2 + 2 * margin);
      // Beyond the border of the picture the last sample goes on.
      const int rows = (window.bottom - window.top) * 8, last = component.width - 1 - window.left * 8;
      for (int y = 0; y < rows; y++) {
        if (window.left == 0) *component.at(y, -1) = *component.at(y, 0);
        if (last < (window.right - window.left) * 8) *component.at(y, last + 1) = *component.at(y, last);
      }
    }
  for (int y = region.top; y < region.top + region.height; y++, out += int64_t(region.width) * 3) {
    const uint8_t* luma = component_[0].at(y - window.top * mcu_height_, left);
    const uint8_t* chroma[2];
    for (int c = 1; c < 3; c++) {
      Component& component = component_[c];
      const int near = y / high, far = std::clamp(near + (y % 2 == 0 ? -1 : 1), 0, component.height - 1);
      const uint8_t* row = component.at(near - window.top * 8, from);
      uint8_t* widened = chroma_[c - 1].data();
      if (high > 1) widen_between(row, component.at(far - window.top * 8, from), samples, widened);
      else if (wide > 1) widen(row, samples, widened);
      chroma[c - 1] = wide > 1 ? widened + left % 2 : row;
    }
    to_rgb(luma, chroma[0], chroma[1], region.width, out);
  }
}
