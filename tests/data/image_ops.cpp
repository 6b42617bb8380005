// Image operations: Pillow's bytes exactly.
#include "helpers.h"

#include "data/affine.h"
#include "data/color_ops.h"
#include "data/filters.h"

namespace {

constexpr Colour fill = {124, 116, 104};

Bytes result(const std::string& op, double v, Interpolation filter, Image image) {
  const int h = image.height, w = image.width;
  const int64_t n = int64_t(h) * w;
  uint8_t* p = image.pixels.data();
  Bytes out(image.pixels.size()), scratch;
  const auto moved = [&](const AffineMap& map) {
    image.pixels.resize(image.pixels.size() + affine_margin);
    transform(image.pixels.data(), h, w, map, filter, fill, out.data());
    return out;
  };
  if (op == "shear_x") return moved({.b = v});
  if (op == "shear_y") return moved({.d = v});
  if (op == "translate_x") return moved({.c = v * w});
  if (op == "translate_y") return moved({.f = v * h});
  if (op == "rotate") return moved(rotation(v, h, w));
  if (op == "sharpness") {
    sharpness(p, h, w, float(v), out.data());
    return out;
  }
  if (op == "autocontrast") autocontrast(p, n);
  else if (op == "equalize") equalize(p, n);
  else if (op == "invert") invert(p, n);
  else if (op == "posterize") posterize(p, n, int(v));
  else if (op == "solarize") solarize(p, n, int(v));
  else if (op == "solarize_add") solarize_add(p, n, int(v));
  else if (op == "color") color(p, n, float(v));
  else if (op == "contrast") contrast(p, n, float(v));
  else if (op == "brightness") brightness(p, n, float(v));
  else if (op == "hue") shift_hue(p, n, v);
  else if (op == "blur") gaussian_blur(p, h, w, v, scratch);
  else FAIL("unknown ", op);
  return image.pixels;
}

}  // namespace

TEST_CASE("image ops: each equals Pillow's, byte for byte") {
  std::ifstream file(SOURCE_DIR "/tests/golden/augment.txt");
  std::string op, filter, kind, hash, raw;
  int cases = 0;
  double argument;
  for (int h, w; file >> op >> argument >> filter >> kind >> h >> w >> hash >> raw; cases++) {
    INFO(op, " ", argument, " ", filter, " of ", kind, " ", h, " x ", w);
    const auto interpolation = filter == "bilinear" ? Interpolation::bilinear : Interpolation::bicubic;
    const Bytes out = result(op, argument, interpolation, golden_picture(kind, h, w));
    CHECK(fnv(out) == hash);
    if (raw != "-") CHECK(hex(out) == raw);
  }
  CHECK(cases == 1340);
}
