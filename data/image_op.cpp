// image_op.cpp: from an operation to the function that does it.
#include "data/image_op.h"

#include <cstring>

#include "data/color_ops.h"
#include "data/filters.h"
#include "engine/check.h"

void ImageEditor::operator()(const ImageOp& op, Colour fill, uint8_t* rgb, int height, int width) {
  const int64_t pixels = int64_t(height) * width;
  const double v = op.amount;
  const auto original = [&] {   // what is read while rgb is written
    scratch_.resize(size_t(pixels) * 3 + affine_margin);
    std::memcpy(scratch_.data(), rgb, size_t(pixels) * 3);
    return scratch_.data();
  };
  const auto move = [&](const AffineMap& map) { transform(original(), height, width, map, op.interpolation, fill, rgb); };
  switch (op.kind) {
    case ImageOp::autocontrast: return autocontrast(rgb, pixels);
    case ImageOp::equalize: return equalize(rgb, pixels);
    case ImageOp::invert: return invert(rgb, pixels);
    case ImageOp::posterize: return posterize(rgb, pixels, int(v));
    case ImageOp::solarize: return solarize(rgb, pixels, int(v));
    case ImageOp::solarize_add: return solarize_add(rgb, pixels, int(v));
    case ImageOp::color: return color(rgb, pixels, float(v));
    case ImageOp::contrast: return contrast(rgb, pixels, float(v));
    case ImageOp::brightness: return brightness(rgb, pixels, float(v));
    case ImageOp::sharpness: return sharpness(original(), height, width, float(v), rgb);
    case ImageOp::blur: return gaussian_blur(rgb, height, width, v, scratch_);
    case ImageOp::hue: return shift_hue(rgb, pixels, v);
    case ImageOp::rotate: return move(rotation(v, height, width));
    case ImageOp::shear_x: return move({.b = v});
    case ImageOp::shear_y: return move({.d = v});
    case ImageOp::translate_x: return move({.c = v * width});
    case ImageOp::translate_y: return move({.f = v * height});
  }
  check(false, "[image op] no such kind: ", int(op.kind));
}
