// The counts of a step against the floor of level G, at batch 256 in bf16.
#include "train/step_count.h"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "tiny_run.h"
#include "train/commands.h"

namespace {

using doctest::Approx;

struct Counted {
  StepCount count;
  StageTraffic stages, floor;

  explicit Counted(const std::string& preset) {
    Training training(recipe_to_count(load_recipe(preset, {"run.dtype=bf16", "data.batch_size=256", "parts.init=trunc_normal"})), true);
    count = count_step(training);
    stages = count.stages(*training.model);
    floor = floor_of_step(*training.model).value();
  }
  double gflop() const { return 2e-9 * double(count.total().macs) / double(count.images); }
  double mb() const { return 1e-6 * double(count.total().bytes) / double(count.images); }
  double floor_mb() const {
    double sum = 0;
    for (const auto& [stage, parts] : floor)
      for (const auto& [part, traffic] : parts) sum += 1e-6 * traffic.both();
    return sum;
  }
  // Passes over tokens x channels of a stage's blocks, forward and backward: C of section 3.1.
  Traffic passes(const std::string& stage, const std::string& part) const {
    const Traffic& counted = stages.at(stage).at(part);
    const double unit = floor.at(stage).at("qkv").forward / 4;
    return {counted.forward / unit, counted.backward / unit};
  }
};

}  // namespace

// What our ops move where section 3.1 has another number of passes, and why:
//   norms and sums   a norm and the sum of the block before it are two kernels, and each term of a sum gets a gradient of its own
// Weights, tables, log-sum-exp and the parts of sums that are added in order come on top: a few per cent at batch 256.
TEST_CASE("step_count: the blocks of Swin-T make as many passes as their kernels say") {
  const Counted swin("swin_tiny");
  const auto check = [&](const char* part, double forward, double backward) {
    INFO(part);
    const Traffic passes = swin.passes("layers.0", part);
    CHECK(passes.forward == Approx(forward).epsilon(0.02));
    CHECK(passes.backward == Approx(backward).epsilon(0.02));
  };
  check("qkv", 4, 8);
  check("attention", 4, 8);
  check("proj", 2, 4);
  check("norms and sums", 9, 11);
  check("mlp", 14, 24);
  CHECK(swin.gflop() == Approx(27.1).epsilon(0.02));
  CHECK(swin.floor_mb() == Approx(255).epsilon(0.02));
  CHECK(swin.mb() == Approx(1.072 * swin.floor_mb()).epsilon(0.01));
}

// Forward: 3 of each of two convolutions, the second with its sum, and 4 of the product between them with its own. Backward: 4 of the second
// convolution, 5 of the first, whose gradient adds to what is there, 3 for the slope of the product's GELU and 4 for its gradients.
TEST_CASE("step_count: LipsFormer-Swin-T adds its convolution branches") {
  const Counted lipsformer("lipsformer_swin_tiny");
  const Traffic convolutions = lipsformer.passes("layers.0", "convolutions");
  CHECK(convolutions.forward == Approx(10).epsilon(0.02));
  CHECK(convolutions.backward == Approx(16).epsilon(0.02));
  CHECK(lipsformer.gflop() == Approx(29.94).epsilon(0.02));
  CHECK(lipsformer.floor_mb() == Approx(338).epsilon(0.02));
  CHECK(lipsformer.mb() == Approx(1.014 * lipsformer.floor_mb()).epsilon(0.01));
}

// ViT-S, because drawing the weights of ViT-B takes seconds; the tables have both.
TEST_CASE("step_count: ViT-S/16 is at 1.07 times its floor") {
  const Counted vit("deit_small");
  CHECK(vit.gflop() == Approx(27.8).epsilon(0.02));
  CHECK(vit.floor_mb() == Approx(154).epsilon(0.02));
  CHECK(vit.mb() == Approx(1.0654 * vit.floor_mb()).epsilon(0.01));
}

TEST_CASE("step_count: CSwin-T has its position of values in the attention") {
  const Counted cswin("cswin_tiny");
  CHECK(cswin.gflop() == Approx(26.1).epsilon(0.02));
  CHECK(cswin.floor_mb() == Approx(257).epsilon(0.02));
  CHECK(cswin.mb() == Approx(1.085 * cswin.floor_mb()).epsilon(0.005));
}

TEST_CASE("step_count: an image costs the same in any batch, but for the weights") {
  const auto count = [](int batch) {
    Training training(recipe_to_count(load_recipe("fashion-lipsformer", {"run.shards=1", "data.batch_size=" + std::to_string(batch)})), true);
    return count_step(training).total();
  };
  const OpCost one = count(1), many = count(4096);
  CHECK(many.macs == 4096 * one.macs);
  CHECK(many.kernels == one.kernels);
  CHECK(double(many.bytes) < 4096 * double(one.bytes));
}

// What `lipsgrad bench --json` prints of a step.
namespace {

// While it lives, stdout goes to a file.
class StdoutTo {
 public:
  explicit StdoutTo(const fs::path& path) : saved_((std::fflush(stdout), ::dup(1))) {
    const int file = ::open(path.c_str(), O_WRONLY | O_CREAT, 0600);
    ::dup2(file, 1);
    ::close(file);
  }
  ~StdoutTo() {
    std::fflush(stdout);
    ::dup2(saved_, 1);
    ::close(saved_);
  }

 private:
  int saved_;
};

nlohmann::json benched(const ScratchFolder& scratch, const std::string& device) {
  {
    const StdoutTo file(scratch / device);
    run_bench({.recipe = (scratch / "recipe.toml").string(), .set = {"run.device=" + device}, .steps = 1, .warmup = 1, .json = true});
  }
  return nlohmann::json::parse(bytes_of(scratch / device));
}

}  // namespace

TEST_CASE("bench: a step on a device, whose ops are recorded once, has the products of one on the CPU") {
  const ScratchFolder scratch;
  write_bytes(scratch / "recipe.toml",
              "preset = \"lipsformer_swin_tiny_bounded\"\n"
              "model = {img_size = 8, patch_size = 2, in_chans = 1, num_classes = 3, embed_dim = 8, depths = [1, 1], num_heads = [1, 2], window_size = 2}\n"
              "augment = {mean = [0.5], std = [0.25], auto_augment = \"none\"}\n"
              "data = {batch_size = 4}\nrun = {threads = 2, shards = 1}\nledger = {measure_samples = 0}\n");
  const nlohmann::json cpu = benched(scratch, "cpu"), device = benched(scratch, "cuda");
  CHECK(device["macs_per_step"].get<int64_t>() > 0);
  CHECK(device["macs_per_step"] == cpu["macs_per_step"]);
  CHECK(cpu["ops"]["linear"].contains("seconds"));
  CHECK_FALSE(device["ops"]["linear"].contains("seconds"));   // the host's clock does not see it
  CHECK(device["ops"]["linear"]["macs"] == cpu["ops"]["linear"]["macs"]);
}
