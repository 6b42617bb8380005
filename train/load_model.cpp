// load_model.cpp: finding the recipe, the weights and the class names.
#include "train/load_model.h"

#include <filesystem>
#include <fstream>

#include "train/checkpoint.h"
#include "train/sealed_folder.h"
#include "train/weights.h"

namespace {

// The newest one, every byte of it checked.
std::filesystem::path sound_checkpoint(const RunPaths& run) {
  const std::filesystem::path folder = newest_checkpoint(run);
  verify_sealed(folder);
  return folder;
}

}  // namespace

LoadedModel load_model(const ModelSource& source) {
  const RunPaths run{source.target};
  const bool is_run = run.holds_run();
  if (!is_run && std::filesystem::is_directory(source.target)) fail(Exit::no_input, source.target, " is a folder but not a run: it has no recipe.toml");
  if (!is_run && source.weights.empty()) fail(Exit::usage, "--weights FILE is needed with a recipe; a run folder would bring its own");
  if (source.ema && !is_run) fail(Exit::usage, "--ema needs a run folder: the averaged weights are in its checkpoints");

  LoadedModel loaded;
  loaded.training = std::make_unique<Training>(load_recipe(is_run ? run.recipe().string() : source.target, source.set), false);
  if (source.ema) {
    loaded.weights = (sound_checkpoint(run) / "state.safetensors").string();
    const SafetensorsFile file(loaded.weights);
    if (loaded.training->recipe.ema.decay == 0) fail(Exit::config, source.target, " kept no averaged weights: its ema.decay is 0");
    // The average is of the weights; buffers are those of the run.
    const std::string model = (sound_checkpoint(run) / "model.safetensors").string();
    load_weights(loaded.training->model->store, SafetensorsFile(model), false);
    load_weights(loaded.training->model->store, file, true, "ema.");
  } else {
    loaded.weights = source.weights.empty() ? (sound_checkpoint(run) / "model.safetensors").string() : source.weights;
    load_weights(loaded.training->model->store, SafetensorsFile(loaded.weights), false);
  }
  if (is_run) {
    std::ifstream classes(run.root / "classes.txt");
    for (std::string line; std::getline(classes, line);) loaded.classes.push_back(line);
  }
  return loaded;
}
