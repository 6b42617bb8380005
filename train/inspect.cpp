// inspect.cpp: one row of each table of a run, sorted and filtered, as text or as JSON.
#include "train/inspect.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <regex>

#include <fmt/format.h>

#include "engine/check.h"
#include "train/run_tables.h"

using nlohmann::json;

namespace {

constexpr double unknown = std::numeric_limits<double>::quiet_NaN();

struct Layer {
  std::string name, kind;
  double bound = unknown;           // inf when unbounded, nan when the table has none
  double spectral_norm = unknown;
};

struct Head {
  std::string name, layer;
  double entropy = unknown, most = unknown;
  std::string history;
};

std::optional<std::size_t> row_at(const CsvData& table, std::optional<std::int64_t> step) {
  const auto& steps = table.numbers("step");
  if (steps.empty()) return {};
  if (!step) return steps.size() - 1;
  const auto after = std::upper_bound(steps.begin(), steps.end(), static_cast<double>(*step));
  if (after == steps.begin()) return {};
  return static_cast<std::size_t>(after - steps.begin()) - 1;
}

double number_at(const CsvData& table, std::string_view column, std::optional<std::size_t> row) {
  const auto& values = table.numbers(column);
  return row && *row < values.size() ? values[*row] : unknown;
}

std::string text_at(const CsvData& table, std::string_view column, std::optional<std::size_t> row) {
  const auto& values = table.texts(column);
  return row && *row < values.size() ? values[*row] : "";
}

class Filter {
 public:
  explicit Filter(const std::string& text) : text_(text) {
    try {
      pattern_ = std::regex(text, std::regex::ECMAScript | std::regex::icase);
    } catch (const std::regex_error&) {
      pattern_.reset();   // "attn[" is looked for as it stands
    }
  }
  bool keeps(const std::string& name) const {
    if (text_.empty() || name.find(text_) != name.npos) return true;
    return pattern_ && std::regex_search(name, *pattern_);
  }

 private:
  std::string text_;
  std::optional<std::regex> pattern_;
};

std::string bar_of(double fraction) {
  static const char* const levels[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  if (!std::isfinite(fraction)) return "×";
  return levels[std::clamp(static_cast<int>(fraction * 8), 0, 7)];
}

// The curve up to a row in a few characters, between 0 and `top`; nan shows as a cross.
std::string sparkline(const std::vector<double>& values, std::size_t end, double top) {
  constexpr std::size_t most_cells = 24;
  const std::size_t cells = std::min(end, most_cells);
  std::string line;
  for (std::size_t cell = 0; cell < cells; cell++) {
    const std::size_t row = cells == 1 ? end - 1 : cell * (end - 1) / (cells - 1);
    line += bar_of(values[row] / top);
  }
  return line;
}

std::vector<Layer> layers_of(const RunTables& run, const InspectOptions& options) {
  const Filter filter(options.filter);
  const auto bound_row = row_at(run.lipschitz, options.step), norm_row = row_at(run.norms, options.step);
  std::vector<Layer> layers;
  std::map<std::string, std::size_t> place;
  const auto layer = [&](const std::string& name) -> Layer& {
    const auto [found, fresh] = place.try_emplace(name, layers.size());
    if (fresh) layers.push_back({.name = name, .kind = run.kind_of(name)});
    return layers[found->second];
  };
  for (const CsvColumn& column : run.lipschitz.columns) {
    if (column.name == "step" || !filter.keeps(column.name)) continue;
    layer(column.name).bound = number_at(run.lipschitz, column.name, bound_row);
  }
  for (const CsvColumn& column : run.norms.columns) {
    if (!column.name.starts_with("sigma.")) continue;
    std::string name = column.name.substr(6);
    const std::string owner = name.ends_with(".weight") ? name.substr(0, name.size() - 7) : name;
    if (run.lipschitz.find(owner)) name = owner;
    if (filter.keeps(name)) layer(name).spectral_norm = number_at(run.norms, column.name, norm_row);
  }
  return layers;
}

// Largest first; a missing value comes last.
bool above(double a, double b) {
  if (std::isnan(a) || std::isnan(b)) return !std::isnan(a) && std::isnan(b);
  return a > b;
}

void sort_layers(std::vector<Layer>& layers, const std::string& by) {
  if (by == "name") {
    std::stable_sort(layers.begin(), layers.end(), [](const Layer& a, const Layer& b) { return a.name < b.name; });
  } else if (by == "norm") {
    std::stable_sort(layers.begin(), layers.end(),
                     [](const Layer& a, const Layer& b) { return above(a.spectral_norm, b.spectral_norm); });
  } else if (by == "bound") {
    std::stable_sort(layers.begin(), layers.end(),
                     [](const Layer& a, const Layer& b) { return above(a.bound, b.bound); });
  } else {
    fail(Exit::usage, "--sort is bound, norm or name, not '", by, "'");
  }
}

// Lowest share of the possible first: that is where attention collapses. nan leads, it must be seen.
std::vector<Head> heads_of(const RunTables& run, const InspectOptions& options) {
  const Filter filter(options.filter);
  const auto row = row_at(run.entropy, options.step);
  std::vector<Head> heads;
  if (!row) return heads;
  for (const CsvColumn& column : run.entropy.columns) {
    if (column.name == "step" || !filter.keeps(column.name)) continue;
    Head head{
        .name = column.name, .layer = layer_of_head(column.name), .entropy = column.numbers[*row], .history = {}};
    head.most = run.entropy_max(head.layer);
    double top = head.most;
    if (std::isnan(top)) {
      top = 0;
      for (const double value : column.numbers) top = std::max(top, std::isfinite(value) ? value : 0.0);
    }
    head.history = sparkline(column.numbers, *row + 1, std::max(top, 1e-12));
    heads.push_back(head);
  }
  const auto share = [](const Head& head) {
    if (std::isnan(head.entropy)) return -1.0;
    return head.entropy / (std::isnan(head.most) ? 1.0 : head.most);
  };
  std::stable_sort(heads.begin(), heads.end(), [&](const Head& a, const Head& b) { return share(a) < share(b); });
  return heads;
}

// JSON knows no infinity: null, and the kind says why.
json or_null(double value) { return std::isfinite(value) ? json(value) : json(); }

json overview(const RunTables& run, const InspectOptions& options) {
  const auto step_row = row_at(run.steps, options.step), epoch_row = row_at(run.epochs, options.step);
  json out = {{"run", run.name}};
  for (const char* name : {"step", "epoch", "samples", "loss", "lr", "grad_norm", "images_per_s"}) {
    out[name] = or_null(number_at(run.steps, name, step_row));
  }
  out["log10_bound"] = or_null(number_at(run.steps, "log10_bound_l2", step_row));
  out["bound_kind"] = text_at(run.steps, "bound_kind", step_row);
  out["bound_blame"] = text_at(run.steps, "bound_blame", step_row);
  out["eval_epoch"] = or_null(number_at(run.epochs, "epoch", epoch_row));
  out["eval_loss"] = or_null(number_at(run.epochs, "loss", epoch_row));
  for (const char* name : {"top1", "top5", "ema_top1", "images", "damaged"}) {
    out[name] = or_null(number_at(run.epochs, name, epoch_row));
  }
  out["events"] = run.events.rows;
  return out;
}

std::string as_json(const RunTables& run, const InspectOptions& options, const std::vector<Layer>& layers,
                    const std::vector<Head>& heads) {
  json out = overview(run, options);
  out["layers"] = json::array();
  for (const Layer& layer : layers) {
    out["layers"].push_back({{"name", layer.name}, {"kind", layer.kind}, {"bound", or_null(layer.bound)},
                             {"unbounded", std::isinf(layer.bound)}, {"spectral_norm", or_null(layer.spectral_norm)}});
  }
  out["heads"] = json::array();
  for (const Head& head : heads) {
    out["heads"].push_back(
        {{"name", head.name}, {"entropy", or_null(head.entropy)}, {"entropy_max", or_null(head.most)}});
  }
  return out.dump(1, ' ', false, json::error_handler_t::replace) + "\n";
}

std::string number(double value) {
  if (std::isnan(value)) return "-";
  if (std::isinf(value)) return "unbounded";
  return fmt::format("{:.4g}", value);
}

// 10^x in four digits, however large.
std::string power_of_ten(double x) {
  if (x < 300) return number(std::pow(10, x));
  const double whole = std::floor(x);
  return fmt::format("{:.3f}e+{:.0f}", std::pow(10, x - whole), whole);
}

std::string overview_text(const json& all) {
  const auto show = [&](const char* key) {
    return all[key].is_number() ? number(all[key].get<double>()) : std::string("-");
  };
  const std::string kind = all["bound_kind"], blame = all["bound_blame"];
  std::string bound = (all["log10_bound"].is_number() ? power_of_ten(all["log10_bound"]) : "-") + (kind.empty() ? "" : " (" + kind + ")");
  if (kind == "unbounded") bound = "unbounded, because of " + (blame.empty() ? "an unnamed layer" : blame);
  const bool not_finite = all["step"].is_number() && !all["loss"].is_number();
  std::string text = fmt::format("{}\n", all["run"].get<std::string>());
  text += fmt::format("  step {}   epoch {}   images {}\n",
                      all["step"].is_number() ? fmt::format("{}", all["step"].get<double>()) : "-", show("epoch"),
                      all["samples"].is_number() ? fmt::format("{}", all["samples"].get<double>()) : "-");
  text += fmt::format("  loss {}   lr {}   gradient norm {}   {} images/s\n",
                      not_finite ? "not a number" : show("loss"), show("lr"), show("grad_norm"), show("images_per_s"));
  text += fmt::format("  evaluation (epoch {}): loss {}   top-1 {}   top-5 {}\n", show("eval_epoch"),
                      show("eval_loss"), show("top1"), show("top5"));
  text += fmt::format("  network bound {}\n", bound);
  const auto events = all["events"].get<std::size_t>();
  if (events > 0) text += fmt::format("  {} event{} in events.csv\n", events, events == 1 ? "" : "s");
  return text;
}

std::size_t rows_shown(std::size_t rows, std::size_t limit) { return limit == 0 ? rows : std::min(rows, limit); }

std::string rest_text(std::size_t rows, std::size_t limit) {
  if (rows_shown(rows, limit) == rows) return "";
  return fmt::format("  ... {} more (--limit 0 shows all, --filter picks)\n", rows - rows_shown(rows, limit));
}

template <class T> std::size_t name_width(const std::vector<T>& rows, std::size_t shown) {
  std::size_t width = 5;
  for (std::size_t i = 0; i < shown; i++) width = std::max(width, rows[i].name.size());
  return width;
}

std::string layers_text(const std::vector<Layer>& layers, const InspectOptions& options) {
  if (layers.empty()) return "";
  const std::size_t shown = rows_shown(layers.size(), options.limit), width = name_width(layers, shown);
  std::string text = fmt::format("\n  {:<{}}  {:>12}  {:>13}  {}\n", "layer", width, "bound", "spectral norm", "kind");
  for (std::size_t i = 0; i < shown; i++) {
    const Layer& layer = layers[i];
    text += fmt::format("  {:<{}}  {:>12}  {:>13}  {}\n", layer.name, width, number(layer.bound),
                        number(layer.spectral_norm), layer.kind);
  }
  return text + rest_text(layers.size(), options.limit);
}

std::string heads_text(const std::vector<Head>& heads, const InspectOptions& options) {
  if (heads.empty()) return "";
  const std::size_t shown = rows_shown(heads.size(), options.limit), width = name_width(heads, shown);
  std::string text = fmt::format("\n  {:<{}}  {:>8}  {:>8}  {}\n", "head", width, "entropy", "of most", "over steps");
  for (std::size_t i = 0; i < shown; i++) {
    const Head& head = heads[i];
    const std::string share = std::isnan(head.most) ? "-" : fmt::format("{:.1f} %", 100 * head.entropy / head.most);
    const std::string entropy = std::isnan(head.entropy) ? "nan" : fmt::format("{:.4f}", head.entropy);
    text += fmt::format("  {:<{}}  {:>8}  {:>8}  {}\n", head.name, width, entropy, share, head.history);
  }
  return text + rest_text(heads.size(), options.limit);
}

}  // namespace

std::string inspect_run(const std::filesystem::path& path, const InspectOptions& options) {
  const RunTables run = read_run(path);
  if (options.step && run.steps.rows > 0 && !row_at(run.steps, options.step)) {
    fail(Exit::usage, "--step ", *options.step, " is before the first step of ", path.string(), ", ",
         run.steps.numbers("step")[0]);
  }
  std::vector<Layer> layers = layers_of(run, options);
  sort_layers(layers, options.sort);
  const std::vector<Head> heads = heads_of(run, options);
  if (options.json) return as_json(run, options, layers, heads);
  return overview_text(overview(run, options)) + layers_text(layers, options) + heads_text(heads, options);
}
