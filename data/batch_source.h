// batch_source.h: batches in order, of images (loader.h) or of a text (text.h).
#pragma once
#include "data/batch.h"
#include "data/dataset.h"

struct BatchSource {
  virtual ~BatchSource() = default;
  virtual int64_t batches() const = 0;   // of an epoch
  virtual void start(int epoch, int64_t first_batch = 0) = 0;
  // The next batch of the epoch, or false at its end. The memory of the batch that is passed in is used again.
  virtual bool next(Batch& batch) = 0;
  // The damaged samples of the batches handed out so far, each once, in the order they were met.
  virtual const std::vector<DamagedImage>& damaged() const = 0;
};
