// jpeg.cpp: libjpeg-turbo, which is asked for no more than the region needs.
#include "data/jpeg.h"

#include <algorithm>
#include <cstdlib>
#include <string>

#include "data/jpeg_baseline.h"
#include "data/jpeg_errors.h"

#include <jerror.h>

#include "data/restart_index.h"
#include "engine/check.h"

namespace {

void limit_scans(j_common_ptr info) {
  if (reinterpret_cast<j_decompress_ptr>(info)->input_scan_number <= max_jpeg_scans) return;
  JpegErrors& errors = *reinterpret_cast<JpegErrors*>(info->err);
  std::snprintf(errors.message, sizeof errors.message, "more than %d scans", max_jpeg_scans);
  longjmp(errors.escape, 1);
}

// a * b / 255, rounded, as Pillow does it.
int multiply(int a, int b) {
  const int t = a * b + 128;
  return ((t >> 8) + t) >> 8;
}

// The file holds inverted ink (Adobe's habit, and Pillow takes it so): K' is the light that black lets through.
void cmyk_to_rgb(const uint8_t* cmyk, uint8_t* rgb) {
  for (int c = 0; c < 3; c++) rgb[c] = uint8_t(cmyk[3] - multiply(255 - cmyk[c], cmyk[3]));
}

uint8_t luma(const uint8_t* rgb) { return uint8_t((19595 * rgb[0] + 38470 * rgb[1] + 7471 * rgb[2] + 32768) >> 16); }

}  // namespace

struct JpegReader::State {
  jpeg_decompress_struct info;
  JpegErrors errors;
  jpeg_progress_mgr progress;
  std::vector<uint8_t> row;     // one decoded line, up to 4 components
  std::span<const uint8_t> bytes;
  Size size;
  bool indexed = false;         // `index` is the file's
  RestartIndex index;
  std::vector<uint8_t> joined;  // the tiles of a region
  BaselineReader baseline;
};

namespace {

using State = JpegReader::State;

bool create(State& s) {
  s.info.err = prepare(s.errors);
  if (setjmp(s.errors.escape)) return false;
  jpeg_create_decompress(&s.info);
  s.info.mem->max_memory_to_use = 1 << 30;
  s.progress = {};
  s.progress.progress_monitor = limit_scans;
  s.info.progress = &s.progress;
  return true;
}

bool read_header(State& s, const uint8_t* bytes, size_t length) {
  s.errors.message[0] = 0;
  s.errors.damaged = false;
  if (setjmp(s.errors.escape)) {
    jpeg_abort_decompress(&s.info);
    return false;
  }
  jpeg_abort_decompress(&s.info);
  jpeg_mem_src(&s.info, bytes, length);
  jpeg_read_header(&s.info, TRUE);
  return true;
}

void emit_row(const uint8_t* row, int from, int width, int to, uint8_t* out) {
  if (from == to) {
    std::copy_n(row, size_t(width) * to, out);
    return;
  }
  for (int x = 0; x < width; x++, row += 4, out += to) {
    uint8_t rgb[3];
    cmyk_to_rgb(row, rgb);
    if (to == 1) out[0] = luma(rgb);
    else std::copy(rgb, rgb + 3, out);
  }
}

// Narrows the columns that are transformed to those that decide the region's. Returns the first of them.
int crop_columns(jpeg_decompress_struct& info, const Box& region) {
  const Columns needed = needed_columns(region, int(info.output_width), info.max_h_samp_factor);
  JDIMENSION left = JDIMENSION(needed.left), width = JDIMENSION(needed.right - needed.left);
  if (width < info.output_width) jpeg_crop_scanline(&info, &left, &width);
  return int(left);
}

// A progressive file may end before it has said everything. libjpeg then smooths what is coarse, with blocks around that a cut would take
// away.
bool is_smoothed(const jpeg_decompress_struct& info) {
  const auto coarse = [](const int* bits) { return std::any_of(bits + 1, bits + DCTSIZE2, [](int unknown) { return unknown != 0; }); };
  return info.coef_bits && std::any_of(info.coef_bits, info.coef_bits + info.num_components, coarse);
}

// Rows above the region are read but not transformed; what lies below is not read, so damage there goes unseen.
bool read_rows(State& s, const Box& region, int channels, uint8_t* out, int shrink) {
  jpeg_decompress_struct& info = s.info;
  if (setjmp(s.errors.escape)) {
    jpeg_abort_decompress(&info);
    return false;
  }
  const bool cmyk = info.jpeg_color_space == JCS_CMYK || info.jpeg_color_space == JCS_YCCK;
  info.out_color_space = cmyk ? JCS_CMYK : channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
  info.dct_method = JDCT_ISLOW;
  info.do_fancy_upsampling = TRUE;
  info.scale_num = 1;
  info.scale_denom = unsigned(shrink);
  jpeg_start_decompress(&info);
  const bool cut = !is_smoothed(info);
  const int skipped_columns = region.left - (cut ? crop_columns(info, region) : 0);
  JSAMPROW row = s.row.data();
  if (cut && region.top > 0) jpeg_skip_scanlines(&info, JDIMENSION(region.top));
  for (int y = 0; y < region.top && !cut; y++) jpeg_read_scanlines(&info, &row, 1);
  for (int y = 0; y < region.height; y++) {
    jpeg_read_scanlines(&info, &row, 1);
    emit_row(row + size_t(skipped_columns) * info.output_components, info.output_components, region.width, channels,
             out + size_t(y) * region.width * channels);
  }
  if (info.output_scanline == info.output_height) jpeg_finish_decompress(&info);  // sees whether the end mark is there
  else jpeg_abort_decompress(&info);
  return true;
}

// The pixels that decide those of a region of the shrunk picture: chroma may be interpolated with the neighbours.
Box unshrunk(const Box& region, int shrink, Size size) {
  const int top = std::max(0, (region.top - 1) * shrink), left = std::max(0, (region.left - 1) * shrink);
  return {top, left, std::min(size.height, (region.top + region.height + 1) * shrink) - top,
          std::min(size.width, (region.left + region.width + 1) * shrink) - left};
}

}  // namespace

JpegReader::JpegReader() : state_(std::make_unique<State>()) {
  if (!create(*state_)) fail(Exit::internal, "libjpeg cannot be set up: ", state_->errors.message);
}

JpegReader::~JpegReader() { jpeg_destroy_decompress(&state_->info); }

Size JpegReader::open(std::span<const uint8_t> bytes) {
  State& s = *state_;
  s.bytes = bytes;
  s.indexed = read_restart_index(bytes, s.index);
  if (s.indexed && !index_is_true(bytes, s.index)) fail(Exit::bad_data, "JPEG: its restart index is damaged: the intervals lie elsewhere");
  // From the start: tables that a file lacks would otherwise be those of the file before it.
  jpeg_destroy_decompress(&s.info);
  const bool read = create(s) && read_header(s, bytes.data(), bytes.size());
  if (!read) fail(Exit::bad_data, "JPEG: ", s.errors.message);
  s.size = {int(s.info.image_height), int(s.info.image_width)};
  return s.size;
}

void JpegReader::read(const Box& region, int channels, uint8_t* out) {
  State& s = *state_;
  const uint8_t* end = s.bytes.data() + s.bytes.size();
  const bool baseline = s.baseline.open(s.info, s.info.src->next_input_byte, end);
  if (baseline && s.baseline.read(region, channels, s.indexed ? &s.index : nullptr, s.bytes.data(), out)) return;
  read_by_libjpeg(region, channels, out);
}

void JpegReader::read_by_libjpeg(const Box& region, int channels, uint8_t* out, int shrink) {
  State& s = *state_;
  Box part = region;
  const Box full = shrink == 1 ? region : unshrunk(region, shrink, s.size);
  const bool whole = full.height == s.size.height && full.width == s.size.width;
  if (s.indexed && !whole) {
    const Tiles tiles = tiles_of(s.index, full);
    join_tiles(s.bytes, s.index, tiles, s.joined);
    if (!read_header(s, s.joined.data(), s.joined.size())) fail(Exit::bad_data, "JPEG: ", s.errors.message);
    part.top -= tiles.top * s.index.tile_height / shrink;
    part.left -= tiles.left * s.index.tile_width / shrink;
  }
  s.row.resize(size_t(s.info.image_width) * 4);
  const bool read = read_rows(s, part, channels, out, shrink);
  if (!read || s.errors.damaged) fail(Exit::bad_data, "JPEG: ", s.errors.message);
}

// libjpeg-turbo 2.1 leaves columns out where it cuts a shrunk picture of unusual sampling.
bool JpegReader::can_shrink() const {
  const jpeg_decompress_struct& info = state_->info;
  if (info.num_components == 1) return true;
  const auto full = [](const jpeg_component_info& c) { return c.h_samp_factor == 1 && c.v_samp_factor == 1; };
  return info.num_components == 3 && info.max_h_samp_factor <= 2 && info.max_v_samp_factor <= 2 && full(info.comp_info[1]) && full(info.comp_info[2]);
}

int JpegReader::warnings() const { return int(state_->errors.base.num_warnings); }
bool JpegReader::lacks_support() const { return state_->errors.base.msg_code == JERR_BAD_MCU_SIZE; }

namespace {

struct Encoding {
  jpeg_compress_struct info;
  JpegErrors errors;
  unsigned char* bytes;  // malloc'ed by libjpeg, freed by encode_gray_jpeg
  unsigned long length;
};

bool encode(Encoding& e, const uint8_t* pixels, int height, int width, int quality) {
  e.info.err = prepare(e.errors);
  if (setjmp(e.errors.escape)) {
    jpeg_destroy_compress(&e.info);
    return false;
  }
  jpeg_create_compress(&e.info);
  jpeg_mem_dest(&e.info, &e.bytes, &e.length);
  e.info.image_height = JDIMENSION(height);
  e.info.image_width = JDIMENSION(width);
  e.info.input_components = 1;
  e.info.in_color_space = JCS_GRAYSCALE;
  jpeg_set_defaults(&e.info);
  jpeg_set_quality(&e.info, quality, TRUE);
  e.info.optimize_coding = TRUE;  // the standard tables would be a third of a 28 x 28 file
  e.info.dct_method = JDCT_ISLOW;
  jpeg_start_compress(&e.info, TRUE);
  while (e.info.next_scanline < e.info.image_height) {
    JSAMPROW row = const_cast<uint8_t*>(pixels) + size_t(e.info.next_scanline) * width;
    jpeg_write_scanlines(&e.info, &row, 1);
  }
  jpeg_finish_compress(&e.info);
  jpeg_destroy_compress(&e.info);
  return true;
}

}  // namespace

std::vector<uint8_t> encode_gray_jpeg(const uint8_t* pixels, int height, int width, int quality) {
  Encoding encoding{};
  const bool done = encode(encoding, pixels, height, width, quality);
  const std::unique_ptr<unsigned char, decltype(&std::free)> owner(encoding.bytes, std::free);
  if (!done) fail(Exit::internal, "JPEG encoder: ", encoding.errors.message);
  return {encoding.bytes, encoding.bytes + encoding.length};
}
