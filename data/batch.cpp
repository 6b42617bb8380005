// batch.cpp: labels to soft targets.
#include "data/batch.h"

#include "engine/check.h"

std::vector<float> soft_targets(const Batch& batch, int classes, double label_smoothing) {
  check(classes > 0, "[soft_targets] classes must be positive, got ", classes);
  const double off = label_smoothing / classes, on = 1 - label_smoothing + off;
  const double own = batch.mix.kind == Mix::none ? 1 : batch.mix.lambda;

  std::vector<float> targets(size_t(batch.count) * classes, 0);  // [count, classes]
  const auto add = [&](int row, int image, double weight) {
    if (weight == 0 || !batch.valid[image]) return;
    const int label = batch.labels[image];
    check(label >= 0 && label < classes, "[soft_targets] label ", label, " must lie below ", classes);
    float* target = &targets[size_t(row) * classes];
    for (int c = 0; c < classes; c++) target[c] += float(weight * (c == label ? on : off));
  };
  for (int i = 0; i < batch.count; i++) {
    if (!batch.valid[i]) continue;
    add(i, i, own);
    add(i, batch.count - 1 - i, 1 - own);
  }
  return targets;
}
