// command_train.cpp: `lipsgrad train`.
#include "engine/comm_launch.h"
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
  const std::shared_ptr<Communicator> comm = connect_ranks(launch_of_environment(), recipe.run.comm_timeout);
  check_same_start(*comm, recipe, from_run);
  for (const bool training : {true, false}) open_split(recipe, training);   // before a folder is made for a run that cannot start
  const auto open = comm->rank > 0 ? RunFolder::of_other_rank : from_run ? RunFolder::resume : RunFolder::create;
  Trainer trainer(recipe, words, open(options.run), from_run, comm);
  return trainer.run();
}
