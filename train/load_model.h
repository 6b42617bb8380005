// load_model.h: a model ready to answer, from a run folder or from a recipe and a file of weights.
#pragma once
#include "train/training.h"

struct ModelSource {
  std::string target;    // a run folder, or a recipe
  std::string weights;   // safetensors; the newest checkpoint of the run unless given
  std::vector<std::string> set;
  bool ema = false;      // the averaged weights of the checkpoint
};

struct LoadedModel {
  std::unique_ptr<Training> training;
  std::vector<std::string> classes;   // empty if the target is a recipe
  std::string weights;                // where they came from
};
LoadedModel load_model(const ModelSource& source);
