// affine.cpp: a pixel at a time, its channels side by side in a vector of doubles, in the very expressions of Pillow.
#include "data/affine.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace {

constexpr int channels = 3;
typedef uint8_t Bytes4 __attribute__((vector_size(4)));
typedef int32_t Ints4 __attribute__((vector_size(16)));
typedef double Doubles4 __attribute__((vector_size(32)));

// A pixel and the byte behind it.
Doubles4 load(const uint8_t* pixel) {
  Bytes4 bytes;
  std::memcpy(&bytes, pixel, sizeof bytes);
  return __builtin_convertvector(__builtin_convertvector(bytes, Ints4), Doubles4);
}

Doubles4 cubic(Doubles4 v1, Doubles4 v2, Doubles4 v3, Doubles4 v4, double t) {
  const Doubles4 p2 = -v1 + v3, p3 = 2 * (v1 - v2) + v3 - v4, p4 = -v1 + v2 - v3 + v4;
  return v2 + t * (p2 + t * (p3 + t * p4));
}

struct Source {
  const uint8_t* pixels;
  int height, width;
  const uint8_t* row(int y) const { return pixels + int64_t(y) * width * channels; }
  int column(int x) const { return std::clamp(x, 0, width - 1) * channels; }
};

// A fraction that is zero for the whole image leaves of its cubic (or line) the one pixel that it starts from: exactly.
template <Interpolation kind, bool horizontal> Doubles4 along_row(const Source& s, int y, int x, double t) {
  const uint8_t* row = s.row(y);
  if constexpr (!horizontal) return load(row + s.column(x));
  if constexpr (kind == Interpolation::bilinear) {
    const Doubles4 a = load(row + s.column(x)), b = load(row + s.column(x + 1));
    return a + (b - a) * t;
  }
  return cubic(load(row + s.column(x - 1)), load(row + s.column(x)), load(row + s.column(x + 1)), load(row + s.column(x + 2)), t);
}

template <Interpolation kind, bool horizontal, bool vertical> Doubles4 sample(const Source& s, double x, double y) {
  x -= 0.5;
  y -= 0.5;
  const double column = std::floor(x), row = std::floor(y), dx = x - column, dy = y - row;
  const int x0 = int(column), y0 = int(row);
  // A row outside the image repeats what the row before it gave, except for the first one.
  const auto next = [&](int at, const Doubles4& before) {
    return at >= 0 && at < s.height ? along_row<kind, horizontal>(s, at, x0, dx) : before;
  };
  if constexpr (!vertical) return along_row<kind, horizontal>(s, y0, x0, dx);
  if constexpr (kind == Interpolation::bilinear) {
    const Doubles4 a = along_row<kind, horizontal>(s, std::clamp(y0, 0, s.height - 1), x0, dx), b = next(y0 + 1, a);
    return a + (b - a) * dy;
  }
  const Doubles4 v1 = along_row<kind, horizontal>(s, std::clamp(y0 - 1, 0, s.height - 1), x0, dx);
  const Doubles4 v2 = next(y0, v1), v3 = next(y0 + 1, v2), v4 = next(y0 + 2, v3);
  return cubic(v1, v2, v3, v4, dy);
}

template <Interpolation kind, bool horizontal, bool vertical>
void transform_as(const Source& s, const AffineMap& m, Colour fill, uint8_t* out) {
  for (int y = 0; y < s.height; y++) {
    for (int x = 0; x < s.width; x++, out += channels) {
      const double from_x = m.a * (x + 0.5) + m.b * (y + 0.5) + m.c, from_y = m.d * (x + 0.5) + m.e * (y + 0.5) + m.f;
      if (from_x < 0 || from_x >= s.width || from_y < 0 || from_y >= s.height) {
        std::copy_n(fill.data(), channels, out);
        continue;
      }
      const Doubles4 v = sample<kind, horizontal, vertical>(s, from_x, from_y);
      for (int c = 0; c < channels; c++) out[c] = uint8_t(int(std::clamp(v[c], 0.0, 255.0)));
    }
  }
}

template <Interpolation kind> void transform_by(const Source& s, const AffineMap& m, Colour fill, uint8_t* out) {
  const bool keeps_rows = m.d == 0 && m.e == 1 && m.f == 0, keeps_columns = m.a == 1 && m.b == 0 && m.c == 0;
  if (keeps_rows) return transform_as<kind, true, false>(s, m, fill, out);
  if (keeps_columns) return transform_as<kind, false, true>(s, m, fill, out);
  transform_as<kind, true, true>(s, m, fill, out);
}

// Python's round(v, 15), of |v| <= 1: the product's own rounding error is taken into account.
double round15(double v) {
  const double scaled = v * 1e15, error = std::fma(v, 1e15, -scaled);
  double whole = std::nearbyint(scaled);
  const double beyond = scaled - whole + error;
  if (std::abs(beyond) > 0.5) whole += beyond > 0 ? 1 : -1;
  return whole / 1e15;
}

}  // namespace

AffineMap rotation(double degrees, int height, int width) {
  const double turned = std::fmod(degrees, 360.0), angle = -(turned < 0 ? turned + 360 : turned) * (3.141592653589793 / 180);
  const double x = width / 2.0, y = height / 2.0;
  AffineMap m{round15(std::cos(angle)), round15(std::sin(angle)), 0, round15(-std::sin(angle)), round15(std::cos(angle)), 0};
  m.c = m.a * -x + m.b * -y + x;
  m.f = m.d * -x + m.e * -y + y;
  return m;
}

void transform(const uint8_t* in, int height, int width, const AffineMap& map, Interpolation kind, Colour fill, uint8_t* out) {
  const Source source{in, height, width};
  if (kind == Interpolation::bilinear) transform_by<Interpolation::bilinear>(source, map, fill, out);
  else transform_by<Interpolation::bicubic>(source, map, fill, out);
}
