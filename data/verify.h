// verify.h: decodes every image of a dataset in full and says which are damaged.
#pragma once
#include <functional>

#include "data/dataset.h"

struct VerifyOptions {
  int threads = 1;
  // Random regions of each image that are also decoded alone, from the file and (JPEG) from its repack, and held to the whole: a check
  // of this program on these files.
  int regions = 0;
  std::function<void(int64_t done)> progress;  // called now and then, by one thread at a time
};

struct Verification {
  int64_t images = 0;
  int64_t irregular = 0;              // decoded, with harmless warnings
  int64_t regions = 0, different = 0; // that were compared, and that had a pixel of another colour
  std::vector<DamagedImage> damaged;  // sorted by sample
};

Verification verify(const Dataset&, const VerifyOptions& options);
