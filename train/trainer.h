// trainer.h: the training loop: data, steps, evaluations, checkpoints, and an orderly end.
#pragma once
#include <deque>
#include <set>
#include <string>

#include "train/checkpoint.h"
#include "train/ledger.h"
#include "train/progress.h"
#include "train/schedule.h"
#include "train/split.h"

// Top-1, top-5 and loss over a whole dataset, of which each rank takes its share; `ema` evaluates the averaged weights.
EvalResult evaluate_dataset(Training& training, BatchSource& loader, bool ema, const std::function<void(int64_t)>& progress = {});

class Trainer {
 public:
  // comm: of several ranks, that each have a trainer of the same recipe. Only the first prints and writes the run folder.
  Trainer(const Recipe& recipe, const std::vector<const char*>& command_line, RunFolder folder, bool resume,
          std::shared_ptr<Communicator> comm = nullptr);
  // Runs to the end, or until a signal asks to stop. Returns the exit code.
  int run();

 private:
  void open_folder(const std::vector<const char*>& command_line, bool resume);
  int train();
  void remember();
  void train_epoch();
  void end_epoch();
  // What a step takes in.
  struct Fetched {
    std::vector<Input> inputs;
    double wait = 0;   // seconds
  };
  Fetched fetch(int64_t number);
  void step();
  void evaluate();
  void measure();
  void report_damaged(const BatchSource& loader, const char* split, size_t& looked_at);
  void report_damaged(const std::string& name_and_reason, const char* split);
  void exchange_damaged();
  void log(const std::string& line);
  void write_flight_recorder(const std::string& reason, const std::string& where, double lr);
  [[noreturn]] void refuse(const std::vector<Input>& inputs, const StepResult& result, double lr);
  void save();
  bool stopping();   // whether any rank was told to; all ask together
  int64_t batches_per_epoch() const { return steps_per_epoch_ * recipe_.optimizer.accumulate; }
  // What happens between two steps is written down under the one before: a checkpoint behind it keeps the row.
  int64_t last_step() const { return std::max<int64_t>(0, position_.step - 1); }

  const Recipe recipe_;
  RunFolder folder_;
  Split train_, val_;
  Training training_;
  Position position_;
  std::vector<Batch> batches_;        // their memory is used again and again
  std::optional<Fetched> ahead_;      // what the next step takes in, if it was fetched while a GPU computed
  std::exception_ptr failed_ahead_;   // or why it could not be
  Schedule schedule_{};
  std::unique_ptr<Ledger> ledger_;   // of the first rank
  Progress progress_;
  std::set<std::string> damaged_;    // images, as events.csv names them
  size_t looked_at_train_ = 0, looked_at_val_ = 0;   // of the loaders' lists
  std::string met_elsewhere_;        // damaged images that the first rank has not heard of
  std::deque<std::string> recent_;   // JSON of the last steps, for the flight recorder
  double images_per_s_ = 0, best_top1_ = 0, last_top1_ = 0;
  int64_t steps_per_epoch_ = 0;
  int alarms_ = 0;
};
