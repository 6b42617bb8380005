// ledger.h: the record of a run, a row a step: bounds, spectral norms, entropies, gradients, residual scales.
#pragma once
#include <memory>
#include <optional>

#include "train/alarms.h"
#include "train/csv_table.h"
#include "train/event_file.h"
#include "train/statistics_history.h"
#include "train/run_folder.h"
#include "train/training.h"

// What the trainer knows of a step; the ledger finds out the rest itself.
struct StepRow {
  int64_t step = 0, epoch = 0, samples = 0;
  double lr = 0, images_per_s = 0, data_wait = 0;
};

struct EpochRow {
  int64_t epoch = 0, step = 0;
  EvalResult result;
  std::optional<EvalResult> ema;
  int64_t damaged = 0;
};

class Ledger {
 public:
  // first_step: set when a run is resumed; later rows are dropped and the tables go on from there.
  Ledger(const RunPaths& paths, Training& training, std::optional<int64_t> first_step = {});
  // What a row says of the weights that the step is made with: their norms, and from what attention saw how low its entropy can be.
  void before_step(int64_t step);
  void before_update(int64_t step, const StepResult& result);
  // After the update: one power iteration on every weight, the bounds, and a row in each table.
  // Returns what this row is an alarm of; the events are written.
  std::vector<Alarms::Event> step(const StepRow& row, const StepResult& result);
  // At an evaluation: the certified bound of the weights as they are, and the largest stretches found on samples.
  void certify(int64_t step);
  void measure(int64_t step, const Input& samples);
  void epoch(const EpochRow& row);
  void event(int64_t step, const std::string& kind, const std::string& layer, const std::string& message);
  void sync();   // before a checkpoint is sealed

  double entropy_mean() const { return entropy_mean_; }   // over all heads, of the last row

 private:
  bool is_full(int64_t step) const { return training_.recipe.ledger.every > 0 && step % training_.recipe.ledger.every == 0; }
  void write_tensorboard(const StepRow& row, const StepResult& result, const std::vector<double>& entropies);
  void write_entropies(const StepRow& row, const StepResult& result, std::vector<double>& entropies);

  Training& training_;
  std::unique_ptr<CsvTable> steps_, lipschitz_, certified_, measured_, norms_, entropy_, entropy_floor_, pnac_, epochs_, events_;
  EventFile tensorboard_;
  StatisticsHistory history_;
  std::vector<const Attention*> attentions_;
  std::vector<int> counters_;  // buffers that count filtered steps
  std::vector<int> weights_;   // parameters that have a spectral norm
  // The network's bound as it was last measured, which the rows of steps.csv repeat until the next time.
  double log10_l2_ = std::numeric_limits<double>::quiet_NaN(), log10_rms_ = log10_l2_;
  std::string network_kind_, network_blame_;
  std::vector<double> entropy_floors_;   // of the row to come
  std::unique_ptr<Alarms> alarms_;
  int64_t certified_step_ = -1;          // of the last row of certified.csv
  double entropy_mean_ = 0;
};
