// pack.h: writes a dataset as WebDataset tar shards of JPEGs.
#pragma once
#include <functional>

#include "data/dataset.h"

struct PackOptions {
  int quality = 95;               // of images that are not compressed yet
  int samples_per_shard = 10000;
  std::function<void(int64_t done)> progress;
};

struct Packed {
  int64_t samples = 0, bytes = 0;
  int shards = 0;
};

// JPEG and PNG images are stored byte for byte; raw pixels are encoded as grayscale JPEG. `folder` must be new or
// empty; it appears whole or not at all. The same dataset gives the same bytes.
Packed pack(const Dataset&, const std::string& folder, const PackOptions& options = {});
