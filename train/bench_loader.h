// bench_loader.h: `lipsgrad bench data --epochs`: the loader as training runs it, and the memory it takes.
#pragma once
#include "data/loader.h"
#include "train/commands.h"

// Runs `options.epochs` epochs over all of `data` and prints, for each, images/s and by how much the process has grown: at the end of the epoch, and
// at most during it. stated: what was said in advance.
int run_loader_epochs(const Dataset& data, const AugmentConfig&, const LoaderConfig&, const LoaderMemory& stated, const BenchDataOptions& options);
