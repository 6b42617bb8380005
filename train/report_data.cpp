// report_data.cpp: the tables of a run, thinned to what a screen can show and packed.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "train/decimate.h"
#include "train/report.h"
#include "train/tree_text.h"

using nlohmann::json;

namespace {

constexpr std::size_t most_points = 2000;          // of a curve of the run as a whole
constexpr std::size_t most_layer_points = 1000;    // of one curve among hundreds

std::string base64(std::string_view bytes) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const auto byte = [&](std::size_t k) { return k < bytes.size() ? static_cast<unsigned char>(bytes[k]) : 0u; };
    const unsigned word = byte(i) << 16 | byte(i + 1) << 8 | byte(i + 2);
    out += digits[word >> 18];
    out += digits[word >> 12 & 63];
    out += i + 1 < bytes.size() ? digits[word >> 6 & 63] : '=';
    out += i + 2 < bytes.size() ? digits[word & 63] : '=';
  }
  return out;
}

// A bound may be finite and yet too large for a float: such a table travels in doubles.
bool fits_float(const std::vector<std::vector<double>>& columns) {
  const double largest = std::numeric_limits<float>::max();
  for (const auto& column : columns) {
    for (const double value : column) {
      if (std::isfinite(value) && std::abs(value) > largest) return false;
    }
  }
  return true;
}

json packed(const std::vector<std::string>& names, const std::vector<std::vector<double>>& columns, std::size_t rows) {
  static_assert(std::endian::native == std::endian::little);
  const bool small = fits_float(columns);
  std::string bytes;
  for (const auto& column : columns) {
    for (const double value : column) {
      const float single = static_cast<float>(value);
      if (small) {
        bytes.append(reinterpret_cast<const char*>(&single), sizeof single);
      } else {
        bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
      }
    }
  }
  return {
      {"columns", names},
      {"rows", rows},
      {"points", columns.empty() ? 0 : columns[0].size()},
      {"type", small ? "f32" : "f64"},
      {"data", base64(bytes)},
  };
}

using Thin = std::vector<double> (*)(const std::vector<double>&, std::size_t);

// All columns of numbers of a table; `step` comes first in every table.
json packed_table(const CsvData& table, std::size_t most, Thin thin_step, Thin thin_value) {
  std::vector<std::string> names;
  std::vector<std::vector<double>> columns;
  for (const CsvColumn& column : table.columns) {
    if (!column.texts.empty() || column.numbers.size() != table.rows) continue;
    const bool is_step = column.name == "step";
    names.push_back(column.name);
    columns.push_back((is_step ? thin_step : thin_value)(column.numbers, most));
  }
  return packed(names, columns, table.rows);
}

json packed_steps(const CsvData& steps) {
  std::vector<std::string> names;
  std::vector<std::vector<double>> columns;
  for (const CsvColumn& column : steps.columns) {
    if (column.name == "bound_kind" || column.name == "bound_blame") continue;
    const bool is_x = column.name == "step" || column.name == "epoch" || column.name == "samples";
    names.push_back(column.name);
    columns.push_back((is_x ? thin_steps : thin_extremes)(column.numbers, most_points));
    if (is_x) continue;
    names.push_back(column.name + ".mean");
    columns.push_back(thin_means(column.numbers, most_points));
  }
  return packed(names, columns, steps.rows);
}

// [first step, kind, blame] of each stretch of steps over which the network's bound was of one kind.
json bound_stretches(const CsvData& steps) {
  json stretches = json::array();
  const auto& at = steps.numbers("step");
  const auto& kinds = steps.texts("bound_kind");
  const auto& blames = steps.texts("bound_blame");
  for (std::size_t i = 0; i < std::min({at.size(), kinds.size(), blames.size()}); i++) {
    const bool same = i > 0 && kinds[i] == kinds[i - 1] && blames[i] == blames[i - 1];
    if (!same) stretches.push_back({at[i], kinds[i], blames[i]});
  }
  return stretches;
}

// JSON has no nan and no infinity: they travel as text.
json number(double value) {
  if (std::isfinite(value)) return value;
  return std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
}

json median(std::vector<double> values) {
  std::erase_if(values, [](double v) { return !std::isfinite(v); });
  if (values.empty()) return nullptr;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

json last_row(const CsvData& table) {
  json row = json::object();
  if (table.rows == 0) return row;
  for (const CsvColumn& column : table.columns) {
    row[column.name] = column.texts.empty() ? number(column.numbers.back()) : json(column.texts.back());
  }
  return row;
}

json best(const CsvData& epochs, const char* name, bool highest) {
  const auto& values = epochs.numbers(name);
  const auto& at = epochs.numbers("epoch");
  json found;
  for (std::size_t i = 0; i < std::min(values.size(), at.size()); i++) {
    if (!std::isfinite(values[i])) continue;
    const bool better = found.is_null() || (highest ? values[i] > found["value"] : values[i] < found["value"]);
    if (better) found = {{"value", values[i]}, {"epoch", at[i]}};
  }
  return found;
}

json events_list(const CsvData& events) {
  json list = json::array();
  for (std::size_t i = 0; i < events.rows; i++) {
    const auto text = [&](const char* name) {
      return i < events.texts(name).size() ? events.texts(name)[i] : std::string();
    };
    const auto& at = events.numbers("step");
    list.push_back({i < at.size() ? number(at[i]) : json(), text("kind"), text("layer"), text("message")});
  }
  return list;
}

}  // namespace

json report_data(const RunTables& run) {
  const std::optional<BoundNode> tree = bound_node(run, {});
  json ledger = run.ledger;
  if (ledger.is_object()) ledger.erase("tree");   // travels as `tree`, with the constants of the last step
  return {
      {"name", run.name},
      {"recipe", run.recipe},
      {"environment", run.environment},
      {"ledger", ledger},
      {"tree", tree ? tree_json(*tree, {}) : json()},
      {"last", last_row(run.steps)},
      {"last_eval", last_row(run.epochs)},
      {"best_top1", best(run.epochs, "top1", true)},
      {"best_loss", best(run.epochs, "loss", false)},
      {"images_per_s", median(run.steps.numbers("images_per_s"))},
      {"bounds", bound_stretches(run.steps)},
      {"events", events_list(run.events)},
      {"steps", packed_steps(run.steps)},
      {"epochs", packed_table(run.epochs, most_points, thin_steps, thin_extremes)},
      {"lipschitz", packed_table(run.lipschitz, most_layer_points, thin_steps, thin_extremes)},
      {"certified", packed_table(run.certified, most_layer_points, thin_steps, thin_extremes)},
      {"measured", packed_table(run.measured, most_layer_points, thin_steps, thin_extremes)},
      {"norms", packed_table(run.norms, most_layer_points, thin_steps, thin_extremes)},
      {"entropy", packed_table(run.entropy, most_layer_points, bucket_steps, bucket_lowest)},
      {"entropy_floor", packed_table(run.entropy_floor, most_layer_points, bucket_steps, bucket_lowest)},
  };
}
