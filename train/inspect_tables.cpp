// inspect_tables.cpp: layers by bound or norm, heads by entropy.
#include "train/inspect_tables.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "engine/check.h"
#include "train/tree_text.h"

namespace {

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

void sort_layers(std::vector<Layer>& layers, const std::string& by) {
  if (by == "name") {
    std::stable_sort(layers.begin(), layers.end(), [](const Layer& a, const Layer& b) { return a.name < b.name; });
  } else if (by == "norm") {
    std::stable_sort(layers.begin(), layers.end(),
                     [](const Layer& a, const Layer& b) { return above(a.spectral_norm, b.spectral_norm); });
  } else if (by == "bound" || by.empty()) {
    std::stable_sort(layers.begin(), layers.end(),
                     [](const Layer& a, const Layer& b) { return above(a.bound, b.bound); });
  } else {
    fail(Exit::usage, "--sort is bound, norm or name, not '", by, "'");
  }
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

}  // namespace

NameFilter::NameFilter(const std::string& text) : text_(text) {
  try {
    pattern_ = std::regex(text, std::regex::ECMAScript | std::regex::icase);
  } catch (const std::regex_error&) {
    pattern_.reset();   // "attn[" is looked for as it stands
  }
}

bool NameFilter::keeps(const std::string& name) const {
  if (text_.empty() || name.find(text_) != name.npos) return true;
  return pattern_ && std::regex_search(name, *pattern_);
}

std::vector<Layer> layers_of(const RunTables& run, const InspectOptions& options) {
  const NameFilter filter(options.filter);
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
  sort_layers(layers, options.sort);
  return layers;
}

std::vector<Head> heads_of(const RunTables& run, const InspectOptions& options) {
  const NameFilter filter(options.filter);
  const auto row = row_at(run.entropy, options.step);
  std::vector<Head> heads;
  if (!row) return heads;
  for (const CsvColumn& column : run.entropy.columns) {
    if (column.name == "step" || !filter.keeps(column.name)) continue;
    Head head{
        .name = column.name, .layer = layer_of_head(column.name), .entropy = column.numbers[*row], .history = {}};
    head.most = run.entropy_max(head.layer);
    head.floor = number_at(run.entropy_floor, column.name, row_at(run.entropy_floor, options.step));
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

std::string number_text(double value) {
  if (std::isnan(value)) return "-";
  if (std::isinf(value)) return "unbounded";
  return fmt::format("{:.4g}", value);
}

std::string layers_text(const std::vector<Layer>& layers, std::size_t limit) {
  if (layers.empty()) return "";
  const std::size_t shown = rows_shown(layers.size(), limit), width = name_width(layers, shown);
  std::string text = fmt::format("\n  {:<{}}  {:>12}  {:>13}  {}\n", "layer", width, "bound", "spectral norm", "kind");
  for (std::size_t i = 0; i < shown; i++) {
    const Layer& layer = layers[i];
    text += fmt::format("  {:<{}}  {:>12}  {:>13}  {}\n", layer.name, width, number_text(layer.bound),
                        number_text(layer.spectral_norm), layer.kind);
  }
  return text + rest_text(layers.size(), limit);
}

std::string heads_text(const std::vector<Head>& heads, std::size_t limit) {
  if (heads.empty()) return "";
  const std::size_t shown = rows_shown(heads.size(), limit), width = name_width(heads, shown);
  std::string text = fmt::format("\n  {:<{}}  {:>8}  {:>8}  {:>8}  {}\n", "head", width, "entropy", "of most", "floor", "over steps");
  for (std::size_t i = 0; i < shown; i++) {
    const Head& head = heads[i];
    const std::string share = std::isnan(head.most) ? "-" : fmt::format("{:.1f} %", 100 * head.entropy / head.most);
    const std::string entropy = std::isnan(head.entropy) ? "nan" : fmt::format("{:.4f}", head.entropy);
    const std::string floor = std::isnan(head.floor) ? "-" : fmt::format("{:.4f}", head.floor);
    text += fmt::format("  {:<{}}  {:>8}  {:>8}  {:>8}  {}\n", head.name, width, entropy, share, floor, head.history);
  }
  return text + rest_text(heads.size(), limit);
}
