// The whole model against PyTorch: logits, loss, entropies, every gradient, ten AdamW steps. The files and their script are in tests/golden.
#include <cmath>
#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "train/training.h"
#include "train/weights.h"

namespace {

// The file's flat settings as a recipe: each key belongs to the section that has it.
Recipe golden_recipe(const SafetensorsFile& file, const std::string& dtype) {
  const auto config = nlohmann::json::parse(file.metadata().at("config")).get<std::map<std::string, std::string>>();
  std::vector<std::string> set{"run.dtype=" + dtype, "optimizer.lr=1e-3", "optimizer.lr_base_batch=0", "optimizer.betas=[0.9, 0.98]",
                               "optimizer.weight_decay=0.05", "optimizer.weight_decay_1d=5e-4", "optimizer.clip_grad=5.0",
                               "model.drop_path_rate=0"};
  for_each_key(Recipe::defaults(), [&](const Key& key, const auto&) {
    const auto it = config.find(key.name);
    if (key.name == "alpha" && config.at("residual") == "plain") return;   // a plain residual has none
    if (it != config.end() && (key.section == "model" || key.section == "parts")) set.push_back(key.path() + "=" + it->second);
  });
  return parse_recipe("", "golden", set);
}

// The largest difference, relative to the largest expected value.
double relative_error(const Tensor& got, const Tensor& expected) {
  const std::vector<double> a = got.values(), b = expected.values();
  REQUIRE(a.size() == b.size());
  double difference = 0, scale = 1e-30;
  for (size_t i = 0; i < a.size(); i++) {
    difference = std::max(difference, std::abs(a[i] - b[i]));
    scale = std::max(scale, std::abs(b[i]));
  }
  return std::isnan(difference) ? INFINITY : difference / scale;
}

void check_golden(const std::string& name, const std::string& dtype, double tolerance, double step_tolerance) {
  CAPTURE(name);
  const SafetensorsFile file(std::string(SOURCE_DIR) + "/tests/golden/" + name + ".safetensors");
  const auto read = [&](const std::string& tensor) { return to_tensor(file.tensors().at(tensor), DType::f64, tensor); };
  Training training(golden_recipe(file, dtype), true);
  ParameterStore& store = training.model->store;
  load_weights(store, file, true, "weight.");
  for (const ParameterInfo& info : store.parameters()) REQUIRE(file.tensors().contains("weight." + info.name));

  Input input;
  input.images = read("images").to(recipe_dtype(training.recipe));
  input.targets = read("targets").to(recipe_dtype(training.recipe));
  input.valid = input.images.dim(0);
  const StepResult result = training.gradients({input}, 0, Pass::deterministic);
  CHECK(result.loss == doctest::Approx(read("loss").item()).epsilon(tolerance));
  EvalResult sums;
  Tensor logits;
  training.evaluate(input, sums, &logits);
  CHECK(relative_error(logits, read("logits")) < std::max(tolerance, 1e-6));   // handed out in f32
  // Gradients are rounded to f32 in the file. One that is zero in exact arithmetic (the key bias of a dot product) is held against the
  // whole gradient's scale.
  double scale = 0;
  for (const ParameterInfo& info : store.parameters())
    for (const double g : read("grad." + info.name).values()) scale = std::max(scale, std::abs(g));
  for (size_t i = 0; i < store.parameters().size(); i++) {
    const Tensor got = store.slice_of(store.gradient(0), int(i)), expected = read("grad." + store.parameters()[i].name);
    const std::vector<double> a = got.values(), b = expected.values();
    double worst = 0, own = 0;
    for (size_t k = 0; k < a.size(); k++) worst = std::max(worst, std::abs(a[k] - b[k])), own = std::max(own, std::abs(b[k]));
    CAPTURE(store.parameters()[i].name);
    CHECK(worst < std::max(tolerance, 1e-7) * std::max(own, 1e-3 * scale));
  }
  for (const Attention* a : training.model->attentions()) {
    const std::vector<double> expected = read("entropy." + a->name).values();
    for (int h = 0; h < a->place.heads; h++)
      CHECK(result.entropies.sums[a->first_head + h] / result.entropies.samples == doctest::Approx(expected[h]).epsilon(1e-5));
  }
  const std::vector<double> losses = read("losses").values();
  for (size_t step = 0; step < losses.size(); step++) {
    const StepResult r = training.gradients({input}, uint32_t(step), Pass::deterministic);
    CAPTURE(step);
    CHECK(r.loss == doctest::Approx(losses[step]).epsilon(step_tolerance));
    training.update(1e-3, r);
  }
  if (dtype != "f64") return;
  for (size_t i = 0; i < store.parameters().size(); i++) {
    CAPTURE(store.parameters()[i].name);
    // The key bias of dot-product attention has no gradient but rounding, which AdamW divides by itself.
    if (training.recipe.parts.attention == "dot" && store.parameters()[i].name.ends_with("qkv.bias")) continue;
    CHECK(relative_error(store.raw(int(i)), read("final." + store.parameters()[i].name)) < 2e-6);
  }
}

}  // namespace

TEST_CASE("golden: LipsFormer as released") {
  check_golden("lipsformer_cosine", "f64", 1e-9, 1e-9);
  check_golden("lipsformer_cosine", "f32", 1e-4, 1e-4);
}
TEST_CASE("golden: LipsFormer with the paper's bounded attention") {
  check_golden("lipsformer_bounded", "f64", 1e-9, 1e-9);
  check_golden("lipsformer_bounded", "f32", 1e-4, 1e-4);
}
TEST_CASE("golden: Swin") {
  check_golden("swin", "f64", 1e-9, 1e-9);
  check_golden("swin", "f32", 1e-4, 1e-4);
}
TEST_CASE("golden: Swin with CenterNorm and cosine attention, three stages") {
  check_golden("swin_mixed", "f64", 1e-9, 1e-9);
  check_golden("swin_mixed", "f32", 1e-4, 1e-4);
}
