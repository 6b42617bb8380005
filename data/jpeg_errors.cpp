// jpeg_errors.cpp: libjpeg's three ways of speaking: errors, warnings, text.
#include "data/jpeg_errors.h"

#include <jerror.h>

namespace {

JpegErrors& errors_of(j_common_ptr info) { return *reinterpret_cast<JpegErrors*>(info->err); }

[[noreturn]] void leave(j_common_ptr info) {
  JpegErrors& errors = errors_of(info);
  errors.base.format_message(info, errors.message);
  longjmp(errors.escape, 1);
}

// A negative level is a warning. It must be counted: an empty function here would make every corruption silent.
void note_message(j_common_ptr info, int level) {
  if (level >= 0) return;
  JpegErrors& errors = errors_of(info);
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

}  // namespace

jpeg_error_mgr* prepare(JpegErrors& errors) {
  jpeg_std_error(&errors.base);
  errors.base.error_exit = leave;
  errors.base.emit_message = note_message;
  errors.base.output_message = print_nothing;
  errors.message[0] = 0;
  errors.damaged = false;
  return &errors.base;
}
