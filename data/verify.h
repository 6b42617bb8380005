// verify.h: decodes every image of a dataset in full and says which are damaged.
#pragma once
#include <functional>

#include "data/dataset.h"

struct Verification {
  int64_t images = 0;
  int64_t irregular = 0;              // decoded, with harmless warnings
  std::vector<DamagedImage> damaged;  // sorted by sample
};

// `progress` is called now and then, by one thread at a time.
Verification verify(const Dataset&, int threads, const std::function<void(int64_t done)>& progress = {});
