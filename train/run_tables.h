// run_tables.h: a run folder read back, for those who look at it: report and inspect.
#pragma once
#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "train/csv_read.h"
#include "train/run_folder.h"

struct RunTables {
  RunPaths paths;
  std::string name;              // of the folder
  std::string recipe;            // text of recipe.toml
  nlohmann::json environment;    // null where the file is missing
  nlohmann::json ledger;
  CsvData steps, epochs, lipschitz, certified, measured, norms, entropy, entropy_floor, events;

  std::string kind_of(const std::string& layer) const;              // "Linear"; empty if the ledger does not know
  double entropy_max(const std::string& attention_layer) const;     // ln(tokens); nan if the ledger does not know
};

// Tables that are not there yet come back empty; a folder that holds no run, or a damaged table, is an Error.
RunTables read_run(const std::filesystem::path& root);

// The row at or before a step, the last one if none is given; none where the table has no such row.
std::optional<std::size_t> row_at(const CsvData& table, std::optional<std::int64_t> step);
// What a column has there: nan, or "", where there is no column or no row.
double number_at(const CsvData& table, std::string_view column, std::optional<std::size_t> row);
std::string text_at(const CsvData& table, std::string_view column, std::optional<std::size_t> row);

// "layers.0.blocks.1.attn.2" -> "layers.0.blocks.1.attn": the attention layer of a column of entropy.csv.
std::string layer_of_head(const std::string& column);
