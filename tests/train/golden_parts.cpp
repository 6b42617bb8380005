// Every backbone, part and update rule against PyTorch: logits, loss, entropies, gradients, buffers and weights after ten steps. The files and
// their scripts are in tests/golden.
#include <cmath>
#include <cstring>
#include <doctest/doctest.h>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "train/training.h"
#include "train/weights.h"

namespace {

Recipe recipe_of(const SafetensorsFile& file, const std::string& dtype) {
  std::vector<std::string> set{"run.dtype=" + dtype, "run.shards=1"};
  const auto keys = nlohmann::json::parse(file.metadata().at("recipe")).get<std::map<std::string, std::string>>();
  for (const auto& [key, value] : keys) set.push_back(key + "=" + value);
  return parse_recipe("", "golden", set);
}

std::vector<int32_t> integers(const Tensor& x) {
  std::vector<int32_t> all;
  for (const double v : x.values()) all.push_back(int32_t(v));
  return all;
}

struct Golden {
  SafetensorsFile file;
  Training training;
  double tolerance;

  Golden(const std::string& name, const std::string& dtype, double tolerance)
      : file(std::string(SOURCE_DIR) + "/tests/golden/" + name + ".safetensors"), training(recipe_of(file, dtype), true), tolerance(tolerance) {
    load_weights(store(), file, true, "weight.");
    for (const ParameterInfo& info : store().parameters()) REQUIRE_MESSAGE(has("weight." + info.name), info.name);
    load_weights(store(), file, true, "buffer.");
    for (const BufferInfo& info : store().buffers())
      if (info.persistent && !info.frozen) REQUIRE_MESSAGE(has("buffer." + info.name), info.name);
    for (const auto& [name, entry] : file.tensors())   // nothing of PyTorch's model is missing here
      if (name.starts_with("weight.")) REQUIRE_MESSAGE(store().find(name.substr(7)) >= 0, name);
  }
  ParameterStore& store() { return training.model->store; }
  bool has(const std::string& name) const { return file.tensors().contains(name); }
  Tensor read(const std::string& name) const { return to_tensor(file.tensors().at(name), DType::f64, name); }

  Input input(double scale) const {
    Input input;
    if (has("tokens")) {
      const Tensor tokens = read("tokens");
      input.tokens = Tensor::from(tokens.shape(), integers(tokens), DType::i32);
      input.labels = Tensor::from(tokens.shape(), integers(read("labels")), DType::i32);
      input.valid = tokens.size();
      return input;
    }
    const Tensor images = read("images");
    std::vector<double> scaled = images.values();
    for (double& v : scaled) v *= scale;
    input.images = Tensor::from(images.shape(), scaled, recipe_dtype(training.recipe));
    input.targets = read("targets").to(recipe_dtype(training.recipe));
    input.valid = images.dim(0);
    return input;
  }

  // No number differs by more than the tolerance, as a part of the largest one or of `least_scale`.
  void check(const std::string& what, const std::vector<double>& got, const Tensor& expected, double least_scale = 0) const {
    const std::vector<double> wanted = expected.values();
    REQUIRE_MESSAGE(got.size() == wanted.size(), what);
    double worst = 0, scale = least_scale;
    for (size_t i = 0; i < got.size(); i++) {
      worst = std::isfinite(got[i]) ? std::max(worst, std::abs(got[i] - wanted[i])) : INFINITY;
      scale = std::max(scale, std::abs(wanted[i]));
    }
    CAPTURE(what);
    CAPTURE(worst);
    CAPTURE(scale);
    CHECK(worst <= tolerance * std::max(scale, 1e-30));
  }

  void check_first_step() {
    const Input x = input(has("input_scales") ? read("input_scales").values()[0] : 1);
    check("eval_logits", training.logits(input(1)).values(), read("eval_logits"));
    const Tensor buffers = store().buffer_values().to(Device{});
    check("logits", training.logits(x, Pass::deterministic).values(), read("logits"));
    std::memcpy(store().buffer_values().raw(), buffers.raw(), buffers.bytes());
    const StepResult result = training.gradients({x}, 0, Pass::deterministic);
    check("loss", {result.loss}, read("loss"));
    double scale = 0;   // a gradient that is zero in exact arithmetic is held against the whole gradient's scale
    for (const ParameterInfo& info : store().parameters())
      for (const double g : read("grad." + info.name).values()) scale = std::max(scale, std::abs(g));
    for (size_t i = 0; i < store().parameters().size(); i++) {
      const std::string& name = store().parameters()[i].name;
      check("grad." + name, store().slice_of(store().gradient(0), int(i)).values(), read("grad." + name), 1e-3 * scale);
    }
    for (const Attention* a : training.model->attentions()) {
      std::vector<double> entropy;
      for (int h = 0; h < a->place.heads; h++) entropy.push_back(result.entropies.sums[a->first_head + h] / result.entropies.samples);
      const Tensor expected = read("entropy." + a->name);
      for (int h = 0; h < a->place.heads; h++) CHECK(entropy[h] == doctest::Approx(expected.values()[h]).epsilon(1e-5));   // handed out in f32
    }
    for (size_t i = 0; i < store().spectral_weights.size(); i++) {
      const std::string weight = store().parameters()[store().spectral_weights[i].weight].name, layer = weight.substr(0, weight.size() - 7);
      check("sigma." + layer, {training.spectral->sigma(i)}, read("sigma." + layer));
    }
    std::memcpy(store().buffer_values().raw(), buffers.raw(), buffers.bytes());
  }

  void check_steps(bool weights) {
    const std::vector<double> losses = read("losses").values(), norms = read("grad_norms").values();
    for (size_t step = 0; step < losses.size(); step++) {
      const Input x = input(has("input_scales") ? read("input_scales").values()[step] : 1);
      const StepResult result = training.gradients({x}, uint32_t(step), Pass::deterministic);
      check("loss of step " + std::to_string(step), {result.loss}, Tensor::full({1}, losses[step], DType::f64));
      check("gradient norm of step " + std::to_string(step), {result.gradient.total}, Tensor::full({1}, norms[step], DType::f64));
      training.update(training.recipe.optimizer.lr, result);
    }
    if (!weights) return;
    for (size_t i = 0; i < store().parameters().size(); i++) {
      const std::string& name = store().parameters()[i].name;
      check("final." + name, store().raw(int(i)).values(), read("final." + name));
    }
    for (size_t i = 0; i < store().buffers().size(); i++) {
      const BufferInfo& info = store().buffers()[i];
      if (info.persistent && !info.frozen) check("final_buffer." + info.name, store().buffer(int(i)).values(), read("final_buffer." + info.name));
    }
    check("final_logits", training.logits(input(1)).values(), read("final_logits"));
  }
};

void check_golden(const std::string& name) {
  CAPTURE(name);
  Golden exact(name, "f64", 1e-9);
  exact.check_first_step();
  exact.check_steps(true);
  Golden single(name, "f32", 1e-4);
  single.check_first_step();
  single.check_steps(false);
}

std::vector<std::string> golden_parts() {
  std::vector<std::string> names;
  for (const auto& file : std::filesystem::directory_iterator(std::string(SOURCE_DIR) + "/tests/golden")) {
    if (file.path().extension() != ".safetensors" || file.path().stem() == "safetensors") continue;
    if (SafetensorsFile(file.path().string()).metadata().contains("recipe")) names.push_back(file.path().stem().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

TEST_CASE("golden: every backbone, part and update rule") {
  const std::vector<std::string> names = golden_parts();
  CHECK(names.size() >= 29);
  for (const std::string& name : names) SUBCASE(name.c_str()) { check_golden(name); }
}
