// pack.h: writes a dataset as WebDataset tar shards of JPEGs.
#pragma once
#include <functional>
#include <optional>

#include "data/dataset.h"

struct PackOptions {
  int quality = 95;                     // of images that are not compressed yet
  int samples_per_shard = 10000;
  std::optional<int> restart_interval;  // repack JPEGs (repack.h): MCUs, 0 chooses
  int threads = 1;                      // none changes a byte
  std::function<void(int64_t done)> progress;
};

struct Packed {
  int64_t samples = 0, bytes = 0;
  int64_t repacked = 0;                 // the others are stored byte for byte
  int shards = 0;
  int finished_before = 0;              // shards that an interrupted run had left and that were kept
};

// JPEG and PNG images are stored byte for byte, or JPEGs repacked; raw pixels are encoded as grayscale JPEG. `folder` must be new or
// empty; it appears whole or not at all. The same dataset gives the same bytes.
//
// An interrupted run leaves its finished shards in FOLDER.part. The next one with the same images and options keeps them and goes on.
Packed pack(const Dataset&, const std::string& folder, const PackOptions& options = {});
