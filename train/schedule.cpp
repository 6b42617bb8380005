// schedule.cpp: a rate that falls behind a linear warmup, stepped per iteration as timm and Swin do.
#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

double Schedule::curve(int64_t t) const {
  if (t < warmup_steps)
    return warmup_lr + (lr - warmup_lr) * static_cast<double>(t) / static_cast<double>(warmup_steps);
  const int64_t length = steps - warmup_steps;
  const double progress = static_cast<double>(std::min(t - warmup_steps, length)) / static_cast<double>(length);
  if (shape == constant) return lr;
  if (shape == linear) return lr + (min_lr - lr) * progress;
  return min_lr + 0.5 * (lr - min_lr) * (1 + std::cos(std::numbers::pi * progress));
}

Schedule make_schedule(const Recipe& recipe, int64_t steps_per_epoch) {
  const OptimizerRecipe& optimizer = recipe.optimizer;
  const double images = static_cast<double>(recipe.data.batch_size) * optimizer.accumulate;
  const double scale = optimizer.lr_base_batch > 0 ? images / optimizer.lr_base_batch : 1.0;
  return {.lr = optimizer.lr * scale,
          .warmup_lr = recipe.schedule.warmup_lr * scale,
          .min_lr = recipe.schedule.min_lr * scale,
          .steps = recipe.schedule.epochs * steps_per_epoch,
          .warmup_steps = static_cast<int64_t>(recipe.schedule.warmup_epochs * static_cast<double>(steps_per_epoch)),
          .shape = recipe.schedule.shape == "linear" ? Schedule::linear : recipe.schedule.shape == "constant" ? Schedule::constant : Schedule::cosine,
          .temperature = recipe.schedule.temperature,
          .temperature_step = static_cast<int64_t>(recipe.schedule.temperature_epoch * static_cast<double>(steps_per_epoch))};
}
