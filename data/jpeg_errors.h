// jpeg_errors.h: what libjpeg has to say, for the files of data/ that call it.
//
// Its errors leave by longjmp, which runs no destructor: every function that calls setjmp holds only plain data, and its
// caller turns the outcome into an exception.
#pragma once
#include <csetjmp>
#include <cstddef>
#include <cstdio>

#include <jpeglib.h>

struct JpegErrors {
  jpeg_error_mgr base;  // first, so that libjpeg's pointer to it is a pointer to this
  jmp_buf escape;
  char message[JMSG_LENGTH_MAX];
  bool damaged;         // a warning that means lost picture data
};

// Errors jump to `escape` with their words in `message`; warnings are counted in base.num_warnings; nothing is printed.
jpeg_error_mgr* prepare(JpegErrors& errors);
