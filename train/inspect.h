// inspect.h: the tables of a run in the terminal.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

struct InspectOptions {
  std::string sort = "";                    // by bound, norm or name; else layers by bound, the tree in the order of the model
  std::string filter = "";                  // of layer and head names: a regular expression, or else plain text
  std::optional<std::int64_t> step = {};    // the row at or before this step; the last one if not given
  std::optional<int> depth = {};            // levels of the tree, 0 for all; 2 unless given, all with a filter or as JSON
  std::size_t limit = 20;                   // rows of a table; 0 for all
  bool json = false;                        // one JSON object, all rows
};

// What is to be printed: overview, the bound as a tree, layers, heads.
std::string inspect_run(const std::filesystem::path& run, const InspectOptions& options);
