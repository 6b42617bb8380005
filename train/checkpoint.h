// checkpoint.h: everything that a run needs to go on to the very step, in a folder that is whole or does not count.
#pragma once
#include "train/run_folder.h"
#include "train/training.h"

// Where a run stands: optimizer steps done, and the next batch.
struct Position {
  int64_t step = 0, epoch = 0, batch = 0;
};

// checkpoints/step-N: model.safetensors (weights by PyTorch's names), state.safetensors (moments, EMA, power iteration), state.json.
// Sealed last; then all but the newest `keep` are removed. It holds the whole state whatever the number of ranks, who all call this; the first writes.
void save_checkpoint(const RunPaths& paths, Training& training, const Position& position, int keep);
// Checks every byte against the manifest, and that the checkpoint belongs to this model.
Position load_checkpoint(const std::filesystem::path& folder, Training& training);
// The newest complete checkpoint of a run. Exit::no_input if there is none.
std::filesystem::path newest_checkpoint(const RunPaths& paths);
