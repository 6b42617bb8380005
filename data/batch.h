// batch.h: what the loader hands to the trainer: u8 pixels and the parameters of what the device does to them.
#pragma once
#include <cstdint>
#include <vector>

#include "engine/box.h"

// Erased after normalisation.
using EraseBox = Box;

// One blend for the whole batch; the partner of image i is image count-1-i.
// mixup:  pixels = lambda * own + (1 - lambda) * partner
// cutmix: pixels of rows [top, bottom) and columns [left, right) come from the partner
struct Mix {
  enum Kind { none, mixup, cutmix } kind = none;
  float lambda = 1;
  int top = 0, left = 0, bottom = 0, right = 0;
};

struct Batch {
  int count = 0, height = 0, width = 0, channels = 0;
  std::vector<uint8_t> images;    // [count, height, width, channels]
  std::vector<int> labels;        // [count]
  std::vector<int64_t> samples;   // [count] index of the sample in its dataset
  std::vector<EraseBox> erase;    // [count, boxes an image], those without height erase nothing
  std::vector<int> tokens, next_tokens;   // a text instead of images: [count, T]; -1 where there is no next one
  Mix mix;
  std::vector<char> valid;        // [count] 0: the image was damaged (pixels are 0, the label does not count)
  double wait_seconds = 0;        // how long next() had to wait
};

// Targets [count, classes]: smoothed, then mixed with the reversed batch. Rows of damaged images are all zero, and a
// damaged partner adds nothing: that row sums to lambda, the share of its picture that is known.
std::vector<float> soft_targets(const Batch&, int classes, double label_smoothing);
