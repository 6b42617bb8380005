// run_tables.cpp: every file of a run folder that a reader may want, and what to do where one is missing.
#include "train/run_tables.h"

#include <algorithm>
#include <limits>

#include "engine/check.h"
#include "engine/durable_file.h"

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

json read_json(const fs::path& path) {
  if (!fs::exists(path)) return nullptr;
  json value = json::parse(read_file(path), nullptr, /*allow_exceptions=*/false);
  if (value.is_discarded()) fail(Exit::bad_data, path.string(), " is not valid JSON");
  return value;
}

}  // namespace

RunTables read_run(const fs::path& root) {
  const RunPaths paths{root};
  if (!fs::is_directory(root)) {
    fail(Exit::no_input, root.string(), " is not a folder: name a run, such as runs/quickstart");
  }
  if (!paths.holds_run()) {
    fail(Exit::no_input, root.string(), " holds no run: neither recipe.toml nor steps.csv is in it");
  }
  const fs::path named = fs::weakly_canonical(root / "");
  return {
      .paths = paths,
      .name = (named.has_filename() ? named : named.parent_path()).filename().string(),
      .recipe = fs::exists(paths.recipe()) ? read_file(paths.recipe()) : "",
      .environment = read_json(paths.environment()),
      .ledger = read_json(paths.ledger()),
      .steps = read_csv(paths.steps(), {"bound_kind", "bound_blame"}),
      .epochs = read_csv(paths.epochs()),
      .lipschitz = read_csv(paths.lipschitz()),
      .certified = read_csv(paths.certified(), {"kind", "blame"}),
      .measured = read_csv(paths.measured()),
      .norms = read_csv(paths.norms()),
      .entropy = read_csv(paths.entropy()),
      .entropy_floor = read_csv(paths.entropy_floor()),
      .events = read_csv(paths.events(), {"kind", "layer", "message"}),
  };
}

std::string RunTables::kind_of(const std::string& layer) const {
  if (!ledger.is_object() || !ledger.contains("layers") || !ledger["layers"].is_array()) return "";
  for (const json& entry : ledger["layers"]) {
    if (entry.is_object() && entry.value("name", "") == layer) return entry.value("kind", "");
  }
  return "";
}

double RunTables::entropy_max(const std::string& attention_layer) const {
  const double unknown = std::numeric_limits<double>::quiet_NaN();
  if (!ledger.is_object() || !ledger.contains("entropy_max") || !ledger["entropy_max"].is_object()) return unknown;
  const auto found = ledger["entropy_max"].find(attention_layer);
  return found != ledger["entropy_max"].end() && found->is_number() ? found->get<double>() : unknown;
}

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
  return row && *row < values.size() ? values[*row] : std::numeric_limits<double>::quiet_NaN();
}

std::string text_at(const CsvData& table, std::string_view column, std::optional<std::size_t> row) {
  const auto& values = table.texts(column);
  return row && *row < values.size() ? values[*row] : "";
}

std::string layer_of_head(const std::string& column) { return column.substr(0, column.rfind('.')); }
