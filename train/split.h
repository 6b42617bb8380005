// split.h: one part of a recipe's data, training or validation, and its batches.
#pragma once
#include <memory>

#include "data/augment.h"
#include "data/loader.h"
#include "data/text.h"
#include "train/recipe.h"

AugmentConfig augment_config(const Recipe& recipe);

// Images in a folder, shards or a pack; or a text, for a model that reads one.
struct Split {
  std::unique_ptr<Dataset> images;
  std::unique_ptr<Text> text;
  std::unique_ptr<BatchSource> source;

  int64_t samples() const;
  std::vector<std::string> classes() const;
};

// Exit::no_input with what to do if the data are not there, Exit::config if they have more classes than the model.
// rank, ranks: the share of one of several processes; data.batch_size is that of all together.
Split open_split(const Recipe& recipe, bool training, int rank = 0, int ranks = 1);
