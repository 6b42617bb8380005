// statistics_history.h: what the norms over the batch saw over the last steps, and how much of it looks normal (PNAC).
#pragma once
#include <deque>
#include <string>
#include <vector>

#include "layers/parameter.h"

// Of every layer with windows (unified, moving_average_batch): the second moments of its activations and the statistics of its gradients, a
// number a channel and step, as the first shard sees them. Only the running of this process is remembered.
class StatisticsHistory {
 public:
  explicit StatisticsHistory(const ParameterStore& store);
  static constexpr int64_t window = 150;   // steps under test (Yang et al. 2022, figure 7)

  void note();   // after a step
  bool full() const { return !series_.empty() && int64_t(series_[0].rows.size()) == window; }
  // "activation.NAME" and "gradient.NAME" of each layer.
  std::vector<std::string> columns() const;
  // Percentage of channels whose series passes the test of D'Agostino and Pearson at the 5 % level.
  std::vector<double> pnac() const;

 private:
  struct Series {
    std::string column;
    int buffer, iters;   // windows [M, C] and the counter that says which row is new
    std::deque<std::vector<double>> rows;
  };
  const ParameterStore& store_;
  std::vector<Series> series_;
};
