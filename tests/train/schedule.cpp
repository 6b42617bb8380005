// schedule: the published curve to the digit, and its two ends.
#include "train/schedule.h"

#include <doctest/doctest.h>

#include <cmath>

#include "engine/check.h"

TEST_CASE("schedule: LipsFormer at batch 1024, golden values of the released scheduler") {
  const Recipe recipe = load_recipe("lipsformer_swin_tiny", {"data.batch_size=1024"});
  const Schedule schedule = make_schedule(recipe, 1251);
  const auto near = [](double value) { return doctest::Approx(value).epsilon(1e-6); };
  CHECK(schedule.steps == 375300);
  CHECK(schedule.curve(0) == 1e-3);
  CHECK(schedule.curve(1251) == near(9.99973e-4));
  CHECK(schedule.curve(375300 / 4) == near(8.55018e-4));
  CHECK(schedule.curve(375300 / 2) == near(5.05e-4));
  CHECK(schedule.curve(375300 / 4 * 3) == near(1.54982e-4));
  CHECK(schedule.curve(375299) == near(1e-5));
  CHECK(schedule.curve(375300) == 1e-5);
  CHECK(schedule.curve(400000) == 1e-5);
}

TEST_CASE("schedule: steps 0 and 1 share the first rate") {
  const Schedule schedule = make_schedule(load_recipe("lipsformer_swin_tiny"), 100);
  CHECK(schedule.at(0) == schedule.curve(0));
  CHECK(schedule.at(1) == schedule.curve(0));
  CHECK(schedule.at(2) == schedule.curve(1));
  CHECK(schedule.at(2) < schedule.at(1));
}

TEST_CASE("schedule: Swin's warmup rises linearly and meets the cosine") {
  const Schedule schedule = make_schedule(load_recipe("swin_tiny"), 1251);  // batch 1024: all rates doubled
  CHECK(schedule.warmup_steps == 25020);
  CHECK(schedule.curve(0) == 1e-6);
  CHECK(schedule.curve(12510) == doctest::Approx((1e-6 + 1e-3) / 2));
  CHECK(schedule.curve(25020) == 1e-3);
  CHECK(schedule.curve(25020 + (375300 - 25020) / 2) == doctest::Approx((1e-3 + 1e-5) / 2));
  CHECK(schedule.curve(375300) == 1e-5);
}

TEST_CASE("schedule: all rates follow the images of a step, unless lr_base_batch is 0") {
  const Schedule scaled =
      make_schedule(load_recipe("swin_tiny", {"data.batch_size=256", "optimizer.accumulate=4"}), 10);
  CHECK(scaled.lr == 1e-3);
  CHECK(scaled.min_lr == 1e-5);
  CHECK(scaled.warmup_lr == 1e-6);
  const Schedule plain = make_schedule(load_recipe("swin_tiny", {"optimizer.lr_base_batch=0"}), 10);
  CHECK(plain.lr == 5e-4);
  CHECK(plain.min_lr == 5e-6);
}

TEST_CASE("schedule: linear and constant rates, behind a warmup") {
  const auto schedule = [](const char* shape) {
    return make_schedule(load_recipe("swin_tiny", {str("schedule.shape=", shape), "optimizer.lr_base_batch=0", "optimizer.lr=1", "schedule.min_lr=0.2",
                                                   "schedule.epochs=10", "schedule.warmup_epochs=2", "schedule.warmup_lr=0"}), 10);
  };
  for (const char* shape : {"linear", "constant", "cosine"}) {   // the rise is the same
    CHECK(schedule(shape).curve(0) == 0);
    CHECK(schedule(shape).curve(10) == doctest::Approx(0.5));
    CHECK(schedule(shape).curve(20) == 1);
  }
  CHECK(schedule("linear").curve(40) == doctest::Approx(0.8));
  CHECK(schedule("linear").curve(60) == doctest::Approx(0.6));
  CHECK(schedule("linear").curve(100) == doctest::Approx(0.2));
  CHECK(schedule("linear").curve(130) == doctest::Approx(0.2));
  CHECK(schedule("cosine").curve(40) == doctest::Approx(0.2 + 0.4 * (1 + std::sqrt(0.5))));
  for (const int64_t t : {21, 60, 100, 130}) CHECK(schedule("constant").curve(t) == 1);
  CHECK(schedule("linear").at(21) == schedule("linear").curve(20));
}

TEST_CASE("schedule: the temperature changes at its step and stays") {
  const Schedule schedule = make_schedule(load_recipe("swin_tiny", {"schedule.temperature=0.1", "schedule.temperature_epoch=2.5"}), 10);
  CHECK(schedule.temperature_step == 25);
  CHECK(schedule.temperature_at(0) == 1);
  CHECK(schedule.temperature_at(24) == 1);
  CHECK(schedule.temperature_at(25) == 0.1);
  CHECK(schedule.temperature_at(100000) == 0.1);
  CHECK(make_schedule(load_recipe("swin_tiny", {"schedule.temperature=0.5"}), 10).temperature_at(0) == 0.5);
  CHECK(make_schedule(load_recipe("swin_tiny"), 10).temperature_at(77) == 1);
}
