// command_train.cpp: `lipsgrad train`.
#include "train/commands.h"
#include "train/recipe.h"
#include "train/signals.h"
#include "train/trainer.h"

int run_train(const TrainOptions& options) {
  const RunPaths paths{options.run};
  // A run that is resumed keeps the recipe it was started with; --set can change what a resumed run may differ in.
  const bool from_run = options.resume && paths.holds_run();
  if (options.resume && options.recipe.empty() && !from_run)
    fail(Exit::no_input, options.run, " holds no run to continue: name a RECIPE to start one");
  const Recipe recipe = load_recipe(from_run ? paths.recipe().string() : options.recipe, options.set);
  const std::vector<const char*> words{"lipsgrad", "train", options.recipe.c_str(), "--run", options.run.c_str()};
  watch_signals();
  for (const bool training : {true, false}) open_split(recipe, training);   // before a folder is made for a run that cannot start
  Trainer trainer(recipe, words, from_run ? RunFolder::resume(options.run) : RunFolder::create(options.run), from_run);
  return trainer.run();
}
