// figure_plot.cpp: scales, axes, legends; then what stands between them.
#include "train/figure_plot.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

namespace {

constexpr Colour ink{}, grid{0.88, 0.88, 0.88};
constexpr double edge = 3, hair = 0.5, tick_length = 2.5, line_height = 11;

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  void take(double v) {
    if (std::isfinite(v)) low = std::min(low, v), high = std::max(high, v);
  }
  void take(const std::vector<double>& values) {
    for (const double v : values) take(v);
  }
  bool empty() const { return low > high; }
};

// 1, 2 or 5 times a power of ten: the smallest step that gives at most `most` marks.
double step_of_marks(double span, int most) {
  const double power = std::pow(10, std::floor(std::log10(span / most)));
  for (const double m : {1.0, 2.0, 5.0, 10.0})
    if (span / (m * power) <= most) return m * power;
  return 10 * power;
}

std::vector<double> marks(const Range& range, int most, bool whole) {
  const double span = range.high - range.low, step = std::max(step_of_marks(span, most), whole ? 1.0 : 0.0);
  std::vector<double> at;
  for (double k = std::ceil(range.low / step - 1e-9); k * step <= range.high + 1e-9 * span; k++) at.push_back(k * step);
  return at;
}

std::string letters(double v) {
  if (std::abs(v) >= 10000) return fmt::format("{:.6g}k", v / 1000);
  return fmt::format("{:.4g}", std::abs(v) < 1e-12 ? 0.0 : v);
}

struct Scales {
  Box box;
  Range x, y;
  double at_x(double v) const { return box.left + (v - x.low) / (x.high - x.low) * box.width(); }
  double at_y(double v) const { return box.bottom - (v - y.low) / (y.high - y.low) * box.height(); }
};

Range widened(Range range, double share) {
  if (range.empty()) return {0, 1};
  const double span = range.high - range.low, room = span > 0 ? share * span : std::max(0.5, 0.1 * std::abs(range.high));
  return {range.low - room, range.high + room};
}

struct Mark {
  double at;
  std::string words;       // of a power of ten: its exponent
  bool is_power = false;
};

// Of a logarithmic axis whole powers of ten; where it spans hardly one, 1, 2 and 5 times each.
std::vector<Mark> marks_of(const Range& range, bool powers) {
  std::vector<Mark> out;
  for (const double v : marks(range, 6, powers)) out.push_back({v, letters(v), powers});
  if (!powers || out.size() > 1) return out;
  out.clear();
  for (double e = std::floor(range.low); e <= range.high; e++)
    for (const double m : {1.0, 2.0, 5.0})
      if (const double v = e + std::log10(m); v >= range.low && v <= range.high) out.push_back({v, letters(m * std::pow(10, e))});
  return out;
}

double width_of(Pen& pen, const Mark& mark) { return mark.is_power ? pen.width_of("10") + pen.width_of(mark.words, 6) : pen.width_of(mark.words); }

// Ends at the spot.
void mark_text(Pen& pen, Spot end, const Mark& mark) {
  if (!mark.is_power) return pen.text(end, mark.words, Align::right);
  pen.text({end.x, end.y - 2.6}, mark.words, Align::right, 6);
  pen.text({end.x - pen.width_of(mark.words, 6), end.y}, "10", Align::right);
}

void step_axis(Pen& pen, const Scales& scales) {
  for (const double v : marks(scales.x, 5, true)) {
    const double x = scales.at_x(v);
    pen.line({{x, scales.box.bottom}, {x, scales.box.bottom + tick_length}}, ink, hair);
    const std::string words = letters(v);
    const double half = pen.width_of(words) / 2;
    pen.text({std::min(x, column_width - edge - half), scales.box.bottom + 8}, words, Align::middle);
  }
  pen.text({(scales.box.left + scales.box.right) / 2, scales.box.bottom + 18}, "step", Align::middle);
}

void frame_of(Pen& pen, const Box& box) {
  pen.line({{box.left, box.top}, {box.right, box.top}, {box.right, box.bottom}, {box.left, box.bottom}, {box.left, box.top}, {box.right, box.top}}, ink, hair);
}

struct Entry {
  std::string label;
  const Curve* curve;   // or else a band's colour
  Colour colour;
};

// In rows from the top; gives the height that it took.
double legend(Pen& pen, const std::vector<Entry>& entries) {
  if (entries.empty()) return edge;
  double x = edge, y = edge + line_height / 2;
  for (const Entry& entry : entries) {
    const double mark = entry.curve ? 16 : 8, width = mark + 3 + pen.width_of(entry.label);
    if (x > edge && x + width > column_width - edge) x = edge, y += line_height;
    if (entry.curve) {
      pen.line({{x, y}, {x + mark, y}}, entry.colour, std::max(1.0, entry.curve->width), entry.curve->dash);
      if (entry.curve->dots > 0) pen.dot({x + mark / 2, y}, entry.curve->dots, entry.colour);
    } else {
      pen.area({{x, y - 3.5}, {x + mark, y - 3.5}, {x + mark, y + 3.5}, {x, y + 3.5}}, entry.colour);
    }
    pen.text({x + mark + 3, y}, entry.label);
    x += width + 10;
  }
  return y + line_height / 2 + 2;
}

// The pieces of a curve between values that are not finite.
std::vector<std::vector<Spot>> pieces_of(const Scales& scales, const Curve& curve) {
  std::vector<std::vector<Spot>> pieces(1);
  for (std::size_t i = 0; i < curve.y.size(); i++) {
    if (std::isfinite(curve.y[i])) pieces.back().push_back({scales.at_x(curve.x[i]), scales.at_y(curve.y[i])});
    else if (!pieces.back().empty()) pieces.emplace_back();
  }
  return pieces;
}

void y_axis(Pen& pen, const Scales& scales, const PlotFrame& frame, const std::vector<Mark>& at) {
  for (const Mark& mark : at) {
    const double y = scales.at_y(mark.at);
    pen.line({{scales.box.left, y}, {scales.box.right, y}}, grid, hair);
    pen.line({{scales.box.left - tick_length, y}, {scales.box.left, y}}, ink, hair);
    mark_text(pen, {scales.box.left - tick_length - 2, y}, mark);
  }
  pen.upward_text({edge + 4, (scales.box.top + scales.box.bottom) / 2}, frame.y_label);
}

}  // namespace

Colour series_colour(std::size_t index) {
  static constexpr Colour colours[] = {{0, 0.447, 0.698}, {0.835, 0.369, 0}, {0, 0.620, 0.451}, {0.800, 0.475, 0.655},
                                       {0.337, 0.706, 0.914}, {0.902, 0.624, 0}, {0.35, 0.35, 0.35}};
  return colours[index % std::size(colours)];
}

Colour ramp_colour(double fraction) {
  static constexpr int stops[] = {0x440154, 0x482878, 0x3e4a89, 0x31688e, 0x26828e, 0x1f9e89, 0x35b779, 0x6ece58, 0xb5de2b, 0xfde725};
  const double at = std::clamp(fraction, 0.0, 1.0) * 9;
  const int first = std::min(int(at), 8);
  const auto part = [&](int shift) { return ((stops[first] >> shift & 255) * (1 - at + first) + (stops[first + 1] >> shift & 255) * (at - first)) / 255; };
  return {part(16), part(8), part(0)};
}

void draw_plot(Pen& pen, const PlotFrame& frame, const std::vector<Band>& bands, const std::vector<Curve>& curves) {
  std::vector<Entry> entries;
  Range x, y;
  for (const Band& band : bands) {
    if (!band.label.empty()) entries.push_back({band.label, nullptr, band.colour});
    x.take(band.x), y.take(band.low), y.take(band.high);
  }
  for (const Curve& curve : curves) {
    if (!curve.label.empty()) entries.push_back({curve.label, &curve, curve.colour});
    x.take(curve.x), y.take(curve.y);
  }
  if (frame.from_zero && !y.empty()) y.low = std::min(0.0, y.low);
  const double top = legend(pen, entries);
  const bool dots = std::any_of(curves.begin(), curves.end(), [](const Curve& curve) { return curve.dots > 0; });
  Scales scales{{0, top, column_width - edge - 4, plot_height - 26}, widened(x, dots ? 0.015 : 0), widened(y, 0.04)};   // no dot is cut
  if (frame.from_zero && y.low == 0) scales.y.low = 0;
  const std::vector<Mark> at = marks_of(scales.y, frame.powers);
  double widest = 0;
  for (const Mark& mark : at) widest = std::max(widest, width_of(pen, mark));
  scales.box.left = edge + 12 + widest + tick_length + 2;
  y_axis(pen, scales, frame, at);
  pen.inside(scales.box, [&] {
    for (const Band& band : bands) {
      std::vector<Spot> corners;
      for (std::size_t i = 0; i < band.x.size(); i++) corners.push_back({scales.at_x(band.x[i]), scales.at_y(band.high[i])});
      for (std::size_t i = band.x.size(); i-- > 0;) corners.push_back({scales.at_x(band.x[i]), scales.at_y(band.low[i])});
      pen.area(corners, band.colour);
      corners.resize(band.x.size());
      pen.line(corners, {1, 1, 1}, 0.4);
    }
    for (const Curve& curve : curves)
      for (const auto& piece : pieces_of(scales, curve)) {
        pen.line(piece, curve.colour, curve.width, curve.dash);
        if (curve.dots > 0 || piece.size() == 1)
          for (const Spot& spot : piece) pen.dot(spot, std::max(curve.dots, 1.0), curve.colour);
      }
  });
  step_axis(pen, scales);
  frame_of(pen, scales.box);
}

namespace {

double cell_height(const std::vector<HeatRow>& rows) { return std::clamp(170.0 / double(std::max<std::size_t>(1, rows.size())), 1.0, 9.0); }

}  // namespace

double heat_height(const std::vector<HeatRow>& rows) { return edge + 24 + double(rows.size()) * cell_height(rows) + 26; }

void draw_heat_map(Pen& pen, const HeatFrame& frame, const std::vector<double>& x, const std::vector<HeatRow>& rows) {
  const double cell = cell_height(rows), span = frame.high > frame.low ? frame.high - frame.low : 1;
  double widest = 0;
  for (const HeatRow& row : rows) widest = std::max(widest, pen.width_of(row.group));
  Range steps;
  steps.take(x);
  Scales scales{{edge + widest + 4, edge + 24, column_width - edge - 4, edge + 24 + cell * double(rows.size())}, widened(steps, 0), {0, 1}};
  std::vector<Colour> colours;
  for (const HeatRow& row : rows)
    for (const double v : row.values) colours.push_back(std::isfinite(v) ? ramp_colour((v - frame.low) / span) : Colour{0.84, 0.15, 0.15});
  pen.cells(scales.box, int(rows.size()), int(x.size()), colours);

  double free = -1;
  for (std::size_t first = 0, end; first < rows.size(); first = end) {
    for (end = first; end < rows.size() && rows[end].group == rows[first].group;) end++;
    const double middle = scales.box.top + cell * double(first + end) / 2, line = scales.box.top + cell * double(first);
    if (first > 0) pen.line({{scales.box.left - tick_length, line}, {scales.box.right, line}}, {1, 1, 1}, 0.4);
    if (middle - 4 < free) continue;
    pen.text({scales.box.left - 4, middle}, rows[first].group, Align::right);
    free = middle + 5;
  }
  step_axis(pen, scales);
  frame_of(pen, scales.box);

  const double wide = 70, left = scales.box.right - wide - pen.width_of(letters(frame.high)) - 4;
  std::vector<Colour> bar;
  for (int i = 0; i < 128; i++) bar.push_back(ramp_colour(i / 127.0));
  const Box place{left, edge + 4, left + wide, edge + 11};
  pen.cells(place, 1, 128, bar);
  frame_of(pen, place);
  pen.text({left - 4, edge + 7.5}, frame.scale_label + "  " + letters(frame.low), Align::right);
  pen.text({left + wide + 4, edge + 7.5}, letters(frame.high));
}
