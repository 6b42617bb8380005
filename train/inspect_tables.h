// inspect_tables.h: the rows that inspect shows of layers and heads: found, sorted, filtered, and put into lines.
#pragma once
#include <limits>
#include <optional>
#include <regex>
#include <string>
#include <vector>

#include "train/inspect.h"
#include "train/run_tables.h"

struct Layer {
  std::string name, kind;
  double bound = std::numeric_limits<double>::quiet_NaN();   // inf when unbounded, nan when the table has none
  double spectral_norm = std::numeric_limits<double>::quiet_NaN();
};

struct Head {
  std::string name, layer;
  double entropy = std::numeric_limits<double>::quiet_NaN(), most = entropy, floor = entropy;   // nats
  std::string history;
};

// Names that match a regular expression in any case, or contain a text as it stands. Empty: all.
class NameFilter {
 public:
  explicit NameFilter(const std::string& text);
  bool keeps(const std::string& name) const;

 private:
  std::string text_;
  std::optional<std::regex> pattern_;
};

// Sorted as the options say.
std::vector<Layer> layers_of(const RunTables& run, const InspectOptions& options);
// Lowest share of the possible first: that is where attention collapses. nan leads, it must be seen.
std::vector<Head> heads_of(const RunTables& run, const InspectOptions& options);

// "" where there are none.
std::string layers_text(const std::vector<Layer>& layers, std::size_t limit);
std::string heads_text(const std::vector<Head>& heads, std::size_t limit);

// Four digits; "-" for nan, "unbounded" for inf.
std::string number_text(double value);
