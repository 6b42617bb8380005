// tree_text.cpp: lines of a tree with columns behind them.
#include "train/tree_text.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

using nlohmann::json;

namespace {

// Leaves what the view asks for. False where neither the node nor anything under it is kept.
bool prune(BoundNode& node, const TreeView& view, int level) {
  if (view.sort == "bound")
    std::stable_sort(node.parts.begin(), node.parts.end(), [](const BoundNode& a, const BoundNode& b) { return above(a.log10_bound, b.log10_bound); });
  if (view.sort == "name")
    std::stable_sort(node.parts.begin(), node.parts.end(), [](const BoundNode& a, const BoundNode& b) { return a.name < b.name; });
  std::erase_if(node.parts, [&](BoundNode& part) { return !prune(part, view, level + 1); });
  const bool kept = !view.keeps || (!node.name.empty() && view.keeps(node.name)) || !node.parts.empty();
  if (view.depth > 0 && level >= view.depth) node.parts.clear();
  return kept;
}

// Behind the name of the layer around it, if it continues that.
std::string short_name(const BoundNode& node, const std::string& around) {
  if (node.name.empty()) return node.kind.empty() ? "its own map" : node.kind;
  return !around.empty() && node.name.starts_with(around + ".") ? node.name.substr(around.size() + 1) : node.name;
}

std::string formula(const BoundNode& node) {
  if (node.join != BoundTree::sum) return node.name.empty() ? "" : node.kind;
  const std::string weight = std::isnan(node.weight) ? "a" : fmt::format("{:.3g}", node.weight);
  return fmt::format("{:.3g} + {} x f", node.skip, weight);
}

struct Line {
  std::string tree, what;
  const BoundNode* node;
};

void add_lines(std::vector<Line>& lines, const BoundNode& node, const std::string& label, const std::string& above, const std::string& around) {
  lines.push_back({label, formula(node), &node});
  // What a sum adds is named beside it, not below it.
  const std::string& inside = node.name.empty() || node.join == BoundTree::sum || &node == lines.front().node ? around : node.name;
  for (std::size_t i = 0; i < node.parts.size(); i++) {
    const bool last = i + 1 == node.parts.size();
    const std::string label = above + (last ? "└─ " : "├─ ") + short_name(node.parts[i], inside);
    add_lines(lines, node.parts[i], label, above + (last ? "   " : "│  "), inside);
  }
}

// As many columns as the terminal takes for it: a byte that continues a character takes none.
std::size_t columns_of(const std::string& text) {
  return std::size_t(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

std::string padded(const std::string& text, std::size_t width) { return text + std::string(width - std::min(width, columns_of(text)), ' '); }

template <class F> bool any(const BoundNode& node, F&& f) {
  return f(node) || std::any_of(node.parts.begin(), node.parts.end(), [&](const BoundNode& part) { return any(part, f); });
}

json or_null(double value) { return std::isfinite(value) ? json(value) : json(); }

json to_json(const BoundNode& node) {
  static const char* const joins[] = {"leaf", "product", "sum"};
  json out{{"name", node.name}, {"kind", node.kind}, {"join", joins[node.join]}, {"log10_bound", or_null(node.log10_bound)},
           {"unbounded", std::isinf(node.log10_bound) && node.log10_bound > 0}, {"share", or_null(node.share)},
           {"log10_certified", or_null(node.log10_certified)}, {"log10_measured", or_null(node.log10_measured)}};
  if (node.join == BoundTree::sum) out["skip"] = node.skip, out["weight"] = or_null(node.weight);
  if (!node.parts.empty()) out["parts"] = json::array();
  for (const BoundNode& part : node.parts) out["parts"].push_back(to_json(part));
  return out;
}

}  // namespace

bool above(double a, double b) {
  if (std::isnan(a) || std::isnan(b)) return !std::isnan(a) && std::isnan(b);
  return a > b;
}

std::string power_of_ten(double x) {
  if (std::isnan(x)) return "-";
  if (x == std::numeric_limits<double>::infinity()) return "unbounded";
  if (x < 300) return fmt::format("{:.4g}", std::pow(10, x));
  const double whole = std::floor(x);
  return fmt::format("{:.3f}e+{:.0f}", std::pow(10, x - whole), whole);
}

std::string tree_text(BoundNode root, const TreeView& view) {
  if (!prune(root, view, 0)) return "";
  std::vector<Line> lines;
  add_lines(lines, root, root.name, "", "");
  const bool certified = any(root, [](const BoundNode& node) { return !std::isnan(node.log10_certified); });
  const bool measured = any(root, [](const BoundNode& node) { return !std::isnan(node.log10_measured); });
  std::size_t wide = 12, formula_wide = 4;
  for (const Line& line : lines) wide = std::max(wide, columns_of(line.tree)), formula_wide = std::max(formula_wide, line.what.size());
  std::string text = fmt::format("  {}  {}  {:>11}  {:>7}", padded("bound", wide), padded("kind", formula_wide), "constant", "share");
  if (certified) text += fmt::format("  {:>11}", "certified");
  if (measured) text += fmt::format("  {:>11}", "measured");
  if (certified && measured) text += fmt::format("  {:>9}", "ratio");
  text += "\n";
  for (const Line& line : lines) {
    const BoundNode& node = *line.node;
    const std::string share = std::isfinite(node.share) ? fmt::format("{:.1f} %", std::abs(node.share) < 5e-4 ? 0.0 : 100 * node.share) : "";
    const auto known = [](double x) { return std::isnan(x) ? "" : power_of_ten(x); };
    text += fmt::format("  {}  {}  {:>11}  {:>7}", padded(line.tree, wide), padded(line.what, formula_wide), power_of_ten(node.log10_bound), share);
    if (certified) text += fmt::format("  {:>11}", known(node.log10_certified));
    if (measured) text += fmt::format("  {:>11}", known(node.log10_measured));
    if (certified && measured) text += fmt::format("  {:>9}", known(node.log10_certified - node.log10_measured));
    text.erase(text.find_last_not_of(' ') + 1);
    text += "\n";
  }
  return text;
}

json tree_json(BoundNode root, const TreeView& view) { return prune(root, view, 0) ? to_json(root) : json(); }
