// affine.cpp: a pixel at a time, its channels side by side in a vector of doubles, in the very expressions of Pillow.
#include "data/affine.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace {

constexpr int channels = 3;
typedef uint8_t Bytes16 __attribute__((vector_size(16)));
typedef int32_t Ints4 __attribute__((vector_size(16)));
typedef double Doubles4 __attribute__((vector_size(32)));

// A pixel and the byte behind it, of 16 that are read.
Doubles4 load(const uint8_t* pixel) {
  Bytes16 bytes;
  std::memcpy(&bytes, pixel, sizeof bytes);
  const Bytes16 wide = __builtin_shufflevector(bytes, Bytes16{}, 0, 16, 16, 16, 1, 16, 16, 16, 2, 16, 16, 16, 3, 16, 16, 16);
  return __builtin_convertvector(reinterpret_cast<Ints4>(wide), Doubles4);
}

Doubles4 cubic(Doubles4 v1, Doubles4 v2, Doubles4 v3, Doubles4 v4, double t) {
  const Doubles4 p2 = -v1 + v3, p3 = 2 * (v1 - v2) + v3 - v4, p4 = -v1 + v2 - v3 + v4;
  return v2 + t * (p2 + t * (p3 + t * p4));
}

// One place in one direction: the four pixels around it (rows or columns), and how far it lies between the middle two.
struct Place {
  int at[4];
  double t;
};

// Columns beyond the border repeat the border.
Place column_place(double x, int width) {
  const double whole = std::floor(x);
  const int i = int(whole);
  const auto inside = [&](int at) { return std::clamp(at, 0, width - 1) * channels; };
  return {{inside(i - 1), inside(i), inside(i + 1), inside(i + 2)}, x - whole};
}

// A row beyond the border repeats the row before it; the first one, the border.
Place row_place(double y, int height) {
  const double whole = std::floor(y);
  const int i = int(whole);
  const auto inside = [&](int at, int before) { return at >= 0 && at < height ? at : before; };
  const int a = std::clamp(i - 1, 0, height - 1), b = inside(i, a), c = inside(i + 1, b), d = inside(i + 2, c);
  return {{a, b, c, d}, y - whole};
}

// Only of the bilinear filter: its first row is the clamped one itself.
Place two_rows(double y, int height) {
  const double whole = std::floor(y);
  const int i = int(whole), a = std::clamp(i, 0, height - 1), b = i + 1 >= 0 && i + 1 < height ? i + 1 : a;
  return {{a, a, b, b}, y - whole};
}

// A fraction that is zero for the whole image leaves of its cubic (or line) the one pixel that it starts from: exactly.
template <Interpolation kind, bool horizontal> Doubles4 along_row(const uint8_t* row, const Place& x) {
  const Doubles4 start = load(row + x.at[1]);
  if constexpr (!horizontal) return start;
  if constexpr (kind == Interpolation::bilinear) return start + (load(row + x.at[2]) - start) * x.t;
  return cubic(load(row + x.at[0]), start, load(row + x.at[2]), load(row + x.at[3]), x.t);
}

template <Interpolation kind, bool horizontal, bool vertical> Doubles4 sample(const uint8_t* in, int64_t stride, const Place& x, const Place& y) {
  const auto row = [&](int i) { return along_row<kind, horizontal>(in + y.at[i] * stride, x); };
  if constexpr (!vertical) return row(1);
  if constexpr (kind == Interpolation::bilinear) {
    const Doubles4 a = row(1);
    return a + (row(2) - a) * y.t;
  }
  return cubic(row(0), row(1), row(2), row(3), y.t);
}

struct Source {
  const uint8_t* pixels;
  int height, width;
};

template <Interpolation kind, bool horizontal, bool vertical>
void transform_as(const Source s, const AffineMap m, Colour fill, uint8_t* out) {
  const int64_t stride = int64_t(s.width) * channels;
  for (int y = 0; y < s.height; y++) {
    for (int x = 0; x < s.width; x++, out += channels) {
      const double from_x = m.a * (x + 0.5) + m.b * (y + 0.5) + m.c, from_y = m.d * (x + 0.5) + m.e * (y + 0.5) + m.f;
      if (from_x < 0 || from_x >= s.width || from_y < 0 || from_y >= s.height) {
        std::copy_n(fill.data(), channels, out);
        continue;
      }
      const Place row = kind == Interpolation::bilinear ? two_rows(from_y - 0.5, s.height) : row_place(from_y - 0.5, s.height);
      Doubles4 v = sample<kind, horizontal, vertical>(s.pixels, stride, column_place(from_x - 0.5, s.width), row);
      v = v < 0.0 ? Doubles4{} : v > 255.0 ? Doubles4{255, 255, 255, 255} : v;
      const Ints4 whole = __builtin_convertvector(v, Ints4);
      for (int c = 0; c < channels; c++) out[c] = uint8_t(whole[c]);
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
