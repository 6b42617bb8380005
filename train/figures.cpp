// figures.cpp: which curves, bands and cells the tables of a run give.
#include "train/figures.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <regex>

#include "engine/check.h"
#include "train/bound_factors.h"
#include "train/decimate.h"
#include "train/figure_plot.h"
#include "train/run_tables.h"

namespace fs = std::filesystem;

namespace {

constexpr std::size_t most_points = 600, most_cells = 300;   // across a column that is two inches wide between its axes

bool any_finite(const std::vector<double>& values) {
  return std::any_of(values.begin(), values.end(), [](double v) { return std::isfinite(v); });
}

std::vector<double> changed(std::vector<double> values, double (*f)(double)) {
  for (double& v : values) v = f(v);
  return values;
}

// The exponential mean over about a hundredth of the run, without bias at its start; nan stays nan.
std::vector<double> running_mean(const std::vector<double>& values) {
  const double keep = 1 - 1 / std::max(1.0, double(values.size()) / 100);
  std::vector<double> out;
  double sum = 0, mass = 0;
  for (const double v : values) {
    if (std::isfinite(v)) sum = keep * sum + (1 - keep) * v, mass = keep * mass + (1 - keep);
    out.push_back(std::isfinite(v) ? sum / mass : v);
  }
  return out;
}

double log10_of(double v) { return std::log10(v); }

// A column of a table as a curve; nothing where the table has no number there.
void add_curve(std::vector<Curve>& curves, const CsvData& table, const std::string& column, Curve style, double (*f)(double) = nullptr) {
  std::vector<double> values = table.numbers(column);
  if (f) values = changed(std::move(values), f);
  if (values.empty() || !any_finite(values)) return;
  style.x = thin_steps(table.numbers("step"), most_points);
  style.y = thin_extremes(values, most_points);
  curves.push_back(std::move(style));
}

void add_mean(std::vector<Curve>& curves, const CsvData& table, const std::string& column, Curve style) {
  const std::vector<double>& values = table.numbers(column);
  if (!any_finite(values)) return;
  style.x = thin_steps(table.numbers("step"), most_points);
  style.y = thin_extremes(running_mean(values), most_points);
  curves.push_back(std::move(style));
}

struct Runs {
  std::vector<RunTables> all;
  fs::path folder;
  std::vector<std::string> names = {};   // of the figures drawn

  std::string label(std::size_t run, const std::string& what) const {
    if (all.size() == 1) return what;
    return what.empty() ? all[run].name : all[run].name + ", " + what;
  }
  std::string file(const RunTables& run, const std::string& what) const { return all.size() == 1 ? what : run.name + "-" + what; }
  void plot(const std::string& name, const PlotFrame& frame, const std::vector<Curve>& curves, const std::vector<Band>& bands = {}) {
    if (curves.empty() && bands.empty()) return;
    write_figure(folder, name, column_width, plot_height, [&](Pen& pen) { draw_plot(pen, frame, bands, curves); });
    names.push_back(name);
  }
};

void loss(Runs& runs) {
  std::vector<Curve> curves;
  for (std::size_t i = 0; i < runs.all.size(); i++) {
    const RunTables& run = runs.all[i];
    const Colour colour = series_colour(runs.all.size() == 1 ? 0 : i);
    add_mean(curves, run.steps, "loss", {.label = runs.label(i, "training"), .colour = colour});
    add_curve(curves, run.epochs, "loss",
              {.label = runs.label(i, "evaluation"), .colour = runs.all.size() == 1 ? series_colour(1) : colour, .dash = {3, 1.5}, .dots = 1.3});
  }
  runs.plot("loss", {.y_label = "loss"}, curves);
}

void accuracy(Runs& runs) {
  std::vector<Curve> curves;
  const bool one = runs.all.size() == 1;
  for (std::size_t i = 0; i < runs.all.size(); i++) {
    const auto percent = [](double share) { return 100 * share; };
    add_curve(curves, runs.all[i].epochs, "top1", {.label = runs.label(i, one ? "top-1" : ""), .colour = series_colour(i), .dots = 1.5}, percent);
    if (one) add_curve(curves, runs.all[i].epochs, "ema_top1",
                       {.label = "top-1 of averaged weights", .colour = series_colour(1), .dash = {3, 1.5}, .dots = 1.3}, percent);
  }
  runs.plot("accuracy", {.y_label = "accuracy in %"}, curves);
}

void bound(Runs& runs) {
  std::vector<Curve> curves;
  for (std::size_t i = 0; i < runs.all.size(); i++)
    add_curve(curves, runs.all[i].steps, "log10_bound_l2", {.label = runs.label(i, ""), .colour = series_colour(i)});
  if (runs.all.size() > 1) runs.plot("bound", {.y_label = "Lipschitz bound (l2)", .powers = true}, curves);
}

// Logarithms stacked from 0: upward where they are above it, downward where they are below.
void factors(Runs& runs, const RunTables& run) {
  const std::vector<BoundFactor> groups = grouped_factors(bound_factors(run), 8);
  const std::vector<double> all_steps = run.lipschitz.numbers("step"), steps = bucket_steps(all_steps, most_points);
  std::vector<double> total(steps.size());
  std::vector<Band> bands;
  for (const int sign : {1, -1}) {
    std::vector<double> side(steps.size());
    for (std::size_t k = 0; k < groups.size(); k++) {
      const std::vector<double> values = bucket_lowest(groups[k].log10_bound, most_points);
      const auto counts = [&](double v) { return std::isfinite(v) && v * sign > 0; };
      for (std::size_t i = 0; i < steps.size(); i++) total[i] += sign > 0 ? values[i] : 0;
      if (std::none_of(values.begin(), values.end(), counts)) continue;
      // A stage that both stretches and shrinks has two bands and one name.
      const bool named = std::any_of(bands.begin(), bands.end(), [&](const Band& band) { return band.label == groups[k].name; });
      Band band{.label = named ? "" : groups[k].name, .x = steps, .low = side,
                .colour = ramp_colour(groups.size() > 1 ? double(k) / double(groups.size() - 1) : 0.5)};
      for (std::size_t i = 0; i < steps.size(); i++) side[i] += counts(values[i]) ? values[i] : 0;
      band.high = side;
      bands.push_back(std::move(band));
    }
  }
  if (!any_finite(total)) return;   // the stack of what is bounded would not be the network's bound
  const std::vector<Curve> curves{{.label = "network", .x = steps, .y = total, .colour = {}, .width = 1.2}};
  runs.plot(runs.file(run, "factors"), {.y_label = "Lipschitz bound (l2)", .powers = true, .from_zero = true}, curves, bands);
}

void stretch(Runs& runs, const RunTables& run) {
  std::vector<Curve> curves;
  add_curve(curves, run.certified, "log10_bound_l2", {.label = "certified", .colour = series_colour(1), .dots = 1.5});
  const bool proven = !curves.empty();
  add_curve(curves, run.steps, "log10_bound_l2", {.label = "estimate", .colour = series_colour(0)});
  add_curve(curves, run.measured, "network", {.label = "measured", .colour = series_colour(2), .dash = {1.5, 1.5}, .dots = 1.5}, log10_of);
  if (proven || run.measured.rows > 0) runs.plot(runs.file(run, "stretch"), {.y_label = "stretch (l2)", .powers = true}, curves);
}

void promise(Runs& runs, const RunTables& run) {
  if (!run.ledger.is_object() || !run.ledger.contains("log10_promised_bound_rms") || !run.ledger["log10_promised_bound_rms"].is_number()) return;
  const double promised = run.ledger["log10_promised_bound_rms"];
  const std::vector<double>& steps = run.steps.numbers("step");
  if (steps.empty()) return;
  std::vector<Curve> curves{{.label = "promised", .x = {steps.front(), steps.back()}, .y = {promised, promised}, .colour = {}, .dash = {5, 2}}};
  add_curve(curves, run.certified, "log10_bound_rms", {.label = "certified", .colour = series_colour(1), .dots = 1.5});
  add_curve(curves, run.steps, "log10_bound_rms", {.label = "estimate", .colour = series_colour(0)});
  runs.plot(runs.file(run, "promise"), {.y_label = "Lipschitz bound (rms)", .powers = true}, curves);
}

// The block that a weight or head lies in, or the merge; else its first word.
std::string group_of(const std::string& name) {
  static const std::regex group("^(.*\\bblocks\\.\\d+|layers\\.\\d+\\.\\w+|\\w+)");
  std::smatch found;
  return std::regex_search(name, found, group) ? found.str() : name;
}

void heat_map(Runs& runs, const std::string& name, const std::vector<double>& steps, const std::vector<HeatRow>& rows, HeatFrame frame) {
  if (rows.empty() || steps.empty()) return;
  write_figure(runs.folder, name, column_width, heat_height(rows), [&](Pen& pen) { draw_heat_map(pen, frame, steps, rows); });
  runs.names.push_back(name);
}

void norms(Runs& runs, const RunTables& run) {
  std::vector<HeatRow> rows;
  HeatFrame frame{.scale_label = "spectral norm"};
  for (const CsvColumn& column : run.norms.columns) {
    if (!column.name.starts_with("sigma.") || column.numbers.empty()) continue;
    const auto negated = [](double v) { return -v; };   // the highest of each stretch of steps
    rows.push_back({group_of(column.name.substr(6)), changed(bucket_lowest(changed(column.numbers, negated), most_cells), negated)});
    for (const double v : rows.back().values)
      if (std::isfinite(v)) frame.high = std::max(frame.high, v);
  }
  heat_map(runs, runs.file(run, "norms"), bucket_steps(run.norms.numbers("step"), most_cells), rows, frame);
}

void entropy(Runs& runs, const RunTables& run) {
  std::vector<HeatRow> rows;
  for (const CsvColumn& column : run.entropy.columns) {
    const double most = run.entropy_max(layer_of_head(column.name));
    if (column.name == "step" || column.numbers.empty() || !(most > 0)) continue;
    rows.push_back({group_of(column.name), bucket_lowest(column.numbers, most_cells)});
    for (double& v : rows.back().values) v /= most;
  }
  heat_map(runs, runs.file(run, "entropy"), bucket_steps(run.entropy.numbers("step"), most_cells), rows, {.scale_label = "entropy / ln(tokens)"});
}

// Of up to five attention layers from front to back the head that ends lowest, with the least entropy that its norms allow.
void entropy_floor(Runs& runs, const RunTables& run) {
  std::vector<const CsvColumn*> lowest;   // of each layer
  for (const CsvColumn& column : run.entropy.columns) {
    if (column.name == "step" || column.numbers.empty() || !any_finite(run.entropy_floor.numbers(column.name))) continue;
    const bool fresh = lowest.empty() || layer_of_head(lowest.back()->name) != layer_of_head(column.name);
    if (fresh) lowest.push_back(&column);
    else if (column.numbers.back() < lowest.back()->numbers.back()) lowest.back() = &column;
  }
  std::vector<Curve> curves;
  const std::size_t count = std::min<std::size_t>(5, lowest.size());
  for (std::size_t k = 0; k < count; k++) {
    const CsvColumn& head = *lowest[count == 1 ? 0 : k * (lowest.size() - 1) / (count - 1)];
    add_mean(curves, run.entropy, head.name, {.label = head.name, .colour = series_colour(k)});
    add_mean(curves, run.entropy_floor, head.name, {.label = "", .colour = series_colour(k), .width = 0.8, .dash = {2, 1.5}});
  }
  if (!curves.empty()) curves.push_back({.label = "floor", .colour = series_colour(6), .width = 0.8, .dash = {2, 1.5}});
  runs.plot(runs.file(run, "entropy_floor"), {.y_label = "entropy in nats", .from_zero = true}, curves);
}

}  // namespace

std::vector<std::string> write_figures(const std::vector<fs::path>& paths, const fs::path& folder) {
  Runs runs{{}, folder};
  std::map<std::string, int> names;
  for (const fs::path& path : paths) {
    runs.all.push_back(read_run(path));
    std::string& name = runs.all.back().name;
    if (const int before = names[name]++; before > 0) name += str("-", before + 1);
  }
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) fail(Exit::io, "cannot create ", folder.string(), ": ", error.message());
  loss(runs);
  accuracy(runs);
  bound(runs);
  for (const RunTables& run : runs.all)
    for (const auto draw : {factors, stretch, promise, norms, entropy, entropy_floor}) draw(runs, run);
  return runs.names;
}
