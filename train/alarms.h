// alarms.h: what a ledger row says that nobody should have to look for: attention that collapses, spectral norms that explode.
#pragma once
#include <deque>
#include <string>
#include <vector>

#include "train/csv_read.h"

// An event begins when its limit is crossed and is told once; it can begin again after it has ended.
class Alarms {
 public:
  struct Options {
    double entropy;   // share of the most that a head's entropy can be; below it the head has collapsed. 0: no alarm
    double norm;      // times a spectral norm above 1 has grown over the last 100 rows. 0: no alarm
  };
  struct Head {
    std::string name;
    double most;   // log of the tokens it can attend to, nats
  };
  struct Event {
    std::string kind, layer, message;   // entropy_collapse, entropy_recovered, norm_explosion
  };
  Alarms(const Options& options, std::vector<Head> heads, std::vector<std::string> weights)
      : options_(options), heads_(std::move(heads)), weights_(std::move(weights)), collapsed_(heads_.size()), exploded_(weights_.size()) {}

  // What begins with a row: entropies of the heads in nats, spectral norms of the weights.
  std::vector<Event> row(const std::vector<double>& entropies, const std::vector<double>& norms);
  // As if the rows so far had been seen here: the events that were told, and norms.csv.
  void restore(const CsvData& events, const CsvData& norms);

 private:
  static constexpr size_t rows_back = 100;
  Options options_;
  std::vector<Head> heads_;
  std::vector<std::string> weights_;
  std::vector<bool> collapsed_, exploded_;
  std::deque<std::vector<double>> norms_;   // of the last rows
};
