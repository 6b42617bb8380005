// image_op.h: one operation on an RGB image, as a policy draws it and a renderer carries it out.
#pragma once
#include <cstdint>
#include <vector>

#include "data/affine.h"

struct ImageOp {
  enum Kind {
    autocontrast, equalize, invert, posterize, solarize, solarize_add, color, contrast, brightness, sharpness, blur, hue,
    rotate, shear_x, shear_y, translate_x, translate_y
  } kind = invert;
  // Bits kept, threshold, what is added, factor (color to sharpness), radius, turn (of the hue's circle), degrees, slope, share of the side.
  double amount = 0;
  Interpolation interpolation = Interpolation::bicubic;   // of what moves pixels
};

// Carries operations out, one thread's; its memory is kept from image to image.
class ImageEditor {
 public:
  // rgb: [height, width, 3], changed in place. `fill` is seen where an image was moved away.
  void operator()(const ImageOp&, Colour fill, uint8_t* rgb, int height, int width);

 private:
  std::vector<uint8_t> scratch_;
};
