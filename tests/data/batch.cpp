// Soft targets against values worked out by hand.
#include "helpers.h"

#include "data/batch.h"

namespace {

Batch batch_of(std::vector<int> labels) {
  Batch batch;
  batch.count = int(labels.size());
  batch.labels = std::move(labels);
  batch.valid.assign(batch.count, 1);
  return batch;
}

void check_equal(const std::vector<float>& got, const std::vector<double>& want) {
  REQUIRE(got.size() == want.size());
  for (size_t i = 0; i < got.size(); i++) CHECK(got[i] == doctest::Approx(want[i]).epsilon(1e-6));
}

}  // namespace

TEST_CASE("targets: one-hot, smoothed, mixed") {
  Batch batch = batch_of({0, 2});
  check_equal(soft_targets(batch, 4, 0), {1, 0, 0, 0, 0, 0, 1, 0});
  check_equal(soft_targets(batch, 4, 0.2), {0.85, 0.05, 0.05, 0.05, 0.05, 0.05, 0.85, 0.05});
  batch.mix = {Mix::mixup, 0.75f};
  check_equal(soft_targets(batch, 4, 0), {0.75, 0, 0.25, 0, 0.25, 0, 0.75, 0});
  batch.mix.kind = Mix::cutmix;
  check_equal(soft_targets(batch, 4, 0.2), {0.65, 0.05, 0.25, 0.05, 0.25, 0.05, 0.65, 0.05});
}

TEST_CASE("targets: the middle of an odd batch is its own partner") {
  Batch batch = batch_of({0, 1, 0});
  batch.mix = {Mix::mixup, 0.75f};
  check_equal(soft_targets(batch, 2, 0), {1, 0, 0, 1, 1, 0});
}

TEST_CASE("targets: a damaged image has none and gives none") {
  Batch batch = batch_of({0, 1, 2, 1});
  batch.valid[0] = 0;
  batch.labels[0] = -7;  // must not be looked at
  check_equal(soft_targets(batch, 3, 0), {0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1, 0});
  batch.mix = {Mix::mixup, 0.75f};
  check_equal(soft_targets(batch, 3, 0), {0, 0, 0, 0, 0.75, 0.25, 0, 0.25, 0.75, 0, 0.75, 0});
}

TEST_CASE("targets: a label outside the classes is a mistake") {
  CHECK(outcome([] { soft_targets(batch_of({3}), 3, 0); }).exit == Exit::internal);
}
