// schedule.h: the learning rate as a pure function of the step, so that a resumed run needs no state of it.
#pragma once
#include <cstdint>

#include "train/recipe.h"

struct Schedule {
  double lr, warmup_lr, min_lr;  // already scaled by the batch
  int64_t steps, warmup_steps;   // optimizer steps of the whole run, and of its linear rise

  enum Shape { cosine, linear, constant } shape = cosine;
  double temperature = 1;             // of attention, from this step on
  int64_t temperature_step = 0;
  double temperature_at(int64_t step) const { return step >= temperature_step ? temperature : 1; }

  // Linear from warmup_lr to lr; then over the remaining steps down to min_lr by half a cosine or a line, or not at all.
  double curve(int64_t t) const;

  // The rate of optimizer step 0, 1, 2, ... The reference sets the rate for the next step *after* each step, from the
  // index of the step just done: steps 0 and 1 both use curve(0), and the last step uses curve(steps - 2).
  double at(int64_t step) const { return curve(step > 0 ? step - 1 : 0); }
};

// steps_per_epoch counts optimizer steps: batches of the epoch / optimizer.accumulate.
Schedule make_schedule(const Recipe& recipe, int64_t steps_per_epoch);
