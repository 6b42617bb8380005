// figure_plot.h: plots of a journal's column: curves and bands over steps, and heat maps, each with its axes and legend.
#pragma once
#include <string>
#include <vector>

#include "train/figure_pen.h"

constexpr double column_width = 3.4 * 72, plot_height = 2.2 * 72;   // points

// Of Okabe and Ito: told apart by colour-blind readers, and by most printers.
Colour series_colour(std::size_t index);
// viridis: 0 dark blue, 1 yellow; steps of equal lightness, so it survives a copy in grey.
Colour ramp_colour(double fraction);

struct Curve {
  std::string label;   // none: not in the legend
  std::vector<double> x, y;
  Colour colour;
  double width = 1;
  std::vector<double> dash = {};
  double dots = 0;     // radius of a dot at each value
};

struct Band {
  std::string label;   // none: not in the legend
  std::vector<double> x, low, high;
  Colour colour;
};

struct PlotFrame {
  std::string y_label;
  bool powers = false;     // y is a decimal logarithm and is lettered 10^y
  bool from_zero = false;
};

// Values that are not finite leave gaps.
void draw_plot(Pen& pen, const PlotFrame& frame, const std::vector<Band>& bands, const std::vector<Curve>& curves);

struct HeatRow {
  std::string group;   // one name for neighbouring rows
  std::vector<double> values;
};

struct HeatFrame {
  std::string scale_label;
  double low = 0, high = 1;   // of the colours
};

double heat_height(const std::vector<HeatRow>& rows);   // points, for write_figure
// One line a row, one cell a step of `x`; what is not finite is red.
void draw_heat_map(Pen& pen, const HeatFrame& frame, const std::vector<double>& x, const std::vector<HeatRow>& rows);
