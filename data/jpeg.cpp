// jpeg.cpp: libjpeg-turbo. Its errors leave by longjmp, which runs no destructor: every function that calls setjmp
// holds only plain data, and turns the outcome into an exception after it has returned.
#include "data/jpeg.h"

#include <csetjmp>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <string>

#include <jpeglib.h>

#include <jerror.h>

#include "engine/check.h"

namespace {

struct ErrorManager {
  jpeg_error_mgr base;  // first, so that libjpeg's pointer to it is a pointer to this
  jmp_buf escape;
  char message[JMSG_LENGTH_MAX];
  bool damaged;         // a warning that means lost picture data
};

ErrorManager& manager(j_common_ptr info) { return *reinterpret_cast<ErrorManager*>(info->err); }

[[noreturn]] void leave(j_common_ptr info) {
  ErrorManager& errors = manager(info);
  errors.base.format_message(info, errors.message);
  longjmp(errors.escape, 1);
}

// A negative level is a warning. It must be counted: an empty function here would make every corruption silent.
void note_message(j_common_ptr info, int level) {
  if (level >= 0) return;
  ErrorManager& errors = manager(info);
  errors.base.num_warnings++;
  switch (errors.base.msg_code) {
    case JWRN_JPEG_EOF:
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_ARITH_BAD_CODE:
    case JWRN_MUST_RESYNC:
      if (!errors.damaged) errors.base.format_message(info, errors.message);
      errors.damaged = true;
  }
}

void print_nothing(j_common_ptr) {}

jpeg_error_mgr* prepare(ErrorManager& errors) {
  jpeg_std_error(&errors.base);
  errors.base.error_exit = leave;
  errors.base.emit_message = note_message;
  errors.base.output_message = print_nothing;
  errors.message[0] = 0;
  errors.damaged = false;
  return &errors.base;
}

void limit_scans(j_common_ptr info) {
  if (reinterpret_cast<j_decompress_ptr>(info)->input_scan_number <= max_jpeg_scans) return;
  ErrorManager& errors = manager(info);
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
  ErrorManager errors;
  jpeg_progress_mgr progress;
  std::vector<uint8_t> row;  // one decoded line, up to 4 components
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

void emit_row(const uint8_t* row, int from, const Box& region, int to, uint8_t* out) {
  row += size_t(region.left) * from;
  if (from == to) {
    std::copy(row, row + size_t(region.width) * to, out);
    return;
  }
  for (int x = 0; x < region.width; x++, row += 4, out += to) {
    uint8_t rgb[3];
    cmyk_to_rgb(row, rgb);
    if (to == 1) out[0] = luma(rgb);
    else std::copy(rgb, rgb + 3, out);
  }
}

// The whole picture is decoded, also below the region, so that damage is seen wherever it lies.
bool read_rows(State& s, const Box& region, int channels, uint8_t* out) {
  if (setjmp(s.errors.escape)) {
    jpeg_abort_decompress(&s.info);
    return false;
  }
  const bool cmyk = s.info.jpeg_color_space == JCS_CMYK || s.info.jpeg_color_space == JCS_YCCK;
  s.info.out_color_space = cmyk ? JCS_CMYK : channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
  s.info.dct_method = JDCT_ISLOW;
  s.info.do_fancy_upsampling = TRUE;
  jpeg_start_decompress(&s.info);
  JSAMPROW row = s.row.data();
  while (s.info.output_scanline < s.info.output_height) {
    const int y = int(s.info.output_scanline) - region.top;
    jpeg_read_scanlines(&s.info, &row, 1);
    if (y < 0 || y >= region.height) continue;
    emit_row(row, s.info.output_components, region, channels, out + size_t(y) * region.width * channels);
  }
  jpeg_finish_decompress(&s.info);
  return true;
}

}  // namespace

JpegReader::JpegReader() : state_(std::make_unique<State>()) {
  if (!create(*state_)) fail(Exit::internal, "libjpeg cannot be set up: ", state_->errors.message);
}

JpegReader::~JpegReader() { jpeg_destroy_decompress(&state_->info); }

Size JpegReader::open(std::span<const uint8_t> bytes) {
  if (!read_header(*state_, bytes.data(), bytes.size())) fail(Exit::bad_data, "JPEG: ", state_->errors.message);
  return {int(state_->info.image_height), int(state_->info.image_width)};
}

void JpegReader::read(const Box& region, int channels, uint8_t* out) {
  State& s = *state_;
  s.row.resize(size_t(s.info.image_width) * 4);
  const bool whole = read_rows(s, region, channels, out);
  if (!whole || s.errors.damaged) fail(Exit::bad_data, "JPEG: ", s.errors.message);
}

int JpegReader::warnings() const { return int(state_->errors.base.num_warnings); }

namespace {

struct Encoding {
  jpeg_compress_struct info;
  ErrorManager errors;
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
