// alarms.cpp: thresholds with memory.
#include "train/alarms.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

std::vector<Alarms::Event> Alarms::row(const std::vector<double>& entropies, const std::vector<double>& norms) {
  std::vector<Event> events;
  for (size_t h = 0; h < heads_.size() && options_.entropy > 0; h++) {
    const double limit = options_.entropy * heads_[h].most;
    if (!collapsed_[h] && entropies[h] < limit) {
      collapsed_[h] = true;
      events.push_back({"entropy_collapse", heads_[h].name,
                        fmt::format("entropy {:.4g} nats, below {:.4g} of the {:.4g} that are possible", entropies[h], options_.entropy, heads_[h].most)});
    } else if (collapsed_[h] && entropies[h] > 2 * limit) {   // well above, so that noise at the limit is one event
      collapsed_[h] = false;
      events.push_back({"entropy_recovered", heads_[h].name, fmt::format("entropy {:.4g} nats", entropies[h])});
    }
  }
  for (size_t w = 0; w < weights_.size() && options_.norm > 0 && !norms_.empty(); w++) {
    const double before = norms_.front()[w], grown = norms[w] / before;
    const bool explodes = norms[w] > std::max(1.0, options_.norm * before);
    if (explodes && !exploded_[w])
      events.push_back({"norm_explosion", weights_[w],
                        fmt::format("spectral norm {:.4g}, {:.3g} times what it was {} rows ago", norms[w], grown, norms_.size())});
    exploded_[w] = explodes;
  }
  norms_.push_back(norms);
  if (norms_.size() > rows_back) norms_.pop_front();
  return events;
}

void Alarms::restore(const CsvData& events, const CsvData& norms) {
  const auto &kinds = events.texts("kind"), &layers = events.texts("layer");
  for (size_t i = 0; i < events.rows; i++)
    for (size_t h = 0; h < heads_.size(); h++) {
      if (layers[i] != heads_[h].name) continue;
      if (kinds[i] == "entropy_collapse") collapsed_[h] = true;
      if (kinds[i] == "entropy_recovered") collapsed_[h] = false;
    }
  norms_.clear();
  for (size_t r = norms.rows > rows_back ? norms.rows - rows_back : 0; r < norms.rows; r++) {
    std::vector<double> row;
    for (const std::string& name : weights_) row.push_back(norms.numbers("sigma." + name)[r]);
    norms_.push_back(std::move(row));
  }
  // Whether a norm stood above its limit at the last row: told then, not again.
  if (norms_.empty()) return;
  const size_t rows = norms.rows;
  for (size_t w = 0; w < weights_.size(); w++) {
    const std::vector<double>& history = norms.numbers("sigma." + weights_[w]);
    const double before = history[rows > rows_back + 1 ? rows - rows_back - 1 : 0];
    exploded_[w] = rows > 1 && options_.norm > 0 && history.back() > std::max(1.0, options_.norm * before);
  }
}
