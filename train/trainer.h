// trainer.h: the training loop: data, steps, evaluations, checkpoints, and an orderly end.
#pragma once
#include <deque>
#include <string>

#include "data/dataset.h"
#include "data/loader.h"
#include "train/checkpoint.h"
#include "train/ledger.h"
#include "train/progress.h"
#include "train/schedule.h"

AugmentConfig augment_config(const Recipe& recipe);
// The recipe's dataset. Exit::no_input with what to do if it is not there, Exit::config if it has more classes than the model.
std::unique_ptr<Dataset> open_split(const Recipe& recipe, bool training);
// Top-1, top-5 and loss over a whole dataset; `ema` evaluates the averaged weights.
EvalResult evaluate_dataset(Training& training, Loader& loader, bool ema, const std::function<void(int64_t)>& progress = {});

class Trainer {
 public:
  Trainer(const Recipe& recipe, const std::vector<const char*>& command_line, RunFolder folder, bool resume);
  // Runs to the end, or until a signal asks to stop. Returns the exit code.
  int run();

 private:
  void train_epoch();
  void step(std::vector<Batch>& batches, double wait);
  void evaluate();
  void report_damaged(const Loader& loader, const char* split, size_t& reported);
  [[noreturn]] void refuse(const std::vector<Input>& inputs, const StepResult& result, double lr);
  void save();
  bool stopping() const;

  const Recipe recipe_;
  RunFolder folder_;
  std::unique_ptr<Dataset> train_data_, val_data_;
  std::unique_ptr<Loader> train_loader_, val_loader_;
  Training training_;
  Position position_;
  Schedule schedule_{};
  std::unique_ptr<Ledger> ledger_;
  Progress progress_;
  size_t reported_train_ = 0, reported_val_ = 0;
  std::deque<std::string> recent_;   // JSON of the last steps, for the flight recorder
  double images_per_s_ = 0, best_top1_ = 0, last_top1_ = 0;
  int64_t steps_per_epoch_ = 0;
};
