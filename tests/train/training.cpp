// training: one step, whatever it is cut into: shards, micro-batches, accumulated batches, recomputed activations. And the guard.
#include "train/training.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "tiny_run.h"
#include "train/csv_read.h"

namespace {

// A batch of noise: image i of the batch is sample first + i.
Batch noise_batch(int count, int first = 0) {
  Batch batch{.count = count, .height = 8, .width = 8, .channels = 1};
  const RandomStream stream(3, "noise batch");
  for (int i = first; i < first + count; i++) {
    for (uint32_t p = 0; p < 64; p++) batch.images.push_back(uint8_t(stream.words(0, uint64_t(i), p)[0]));
    batch.labels.push_back(i % 3);
    batch.samples.push_back(i);
    batch.erase.push_back({});
    batch.valid.push_back(1);
  }
  return batch;
}

struct Step {
  StepResult result;
  std::vector<double> weights;   // after the update
};

Step one_step(const std::vector<std::string>& set, const std::vector<Batch>& batches, Pass pass = Pass::training) {
  Training training(tiny_recipe("unused", set), true);
  std::vector<Input> inputs;
  for (const Batch& batch : batches) inputs.push_back(make_input(batch, training.recipe, 3, int64_t(inputs.size()) * batch.count, true));
  Step step{training.gradients(inputs, 3, pass), {}};
  training.update(1e-3, step.result);
  step.weights = training.model->store.values().values();
  return step;
}

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double most = 0;
  for (size_t i = 0; i < a.size(); i++) most = std::max(most, std::abs(a[i] - b[i]));
  return most;
}

}  // namespace

TEST_CASE("training: micro-batches and shards change only rounding, random parts included") {
  const std::vector<Batch> batch{noise_batch(8)};
  const Step whole = one_step({"run.dtype=f64", "run.shards=1", "run.micro_batch=8"}, batch);
  for (const std::vector<std::string>& cut : std::vector<std::vector<std::string>>{
           {"run.shards=1", "run.micro_batch=3"}, {"run.shards=2", "run.micro_batch=1"}, {"run.shards=3"}, {"run.shards=8"}}) {
    CAPTURE(cut.front());
    std::vector<std::string> set{"run.dtype=f64"};
    set.insert(set.end(), cut.begin(), cut.end());
    const Step step = one_step(set, batch);
    CHECK(step.result.loss == doctest::Approx(whole.result.loss).epsilon(1e-6));   // a loss is added up in f32
    CHECK(largest_difference(step.result.gradient.parameters, whole.result.gradient.parameters) < 1e-6);
    CHECK(step.result.entropies.samples == 8);
    for (size_t h = 0; h < whole.result.entropies.sums.size(); h++)
      CHECK(step.result.entropies.sums[h] == doctest::Approx(whole.result.entropies.sums[h]).epsilon(1e-6));
  }
}

TEST_CASE("training: two accumulated batches are one batch of twice the size") {
  const std::vector<std::string> set{"run.dtype=f64", "model.drop_path_rate=0"};
  const Step once = one_step(set, {noise_batch(16)}), twice = one_step(set, {noise_batch(8), noise_batch(8, 8)});
  CHECK(once.result.loss == doctest::Approx(twice.result.loss).epsilon(1e-6));
  CHECK(once.result.gradient.total == doctest::Approx(twice.result.gradient.total).epsilon(1e-6));
  CHECK(largest_difference(once.weights, twice.weights) < 1e-6);
  CHECK(twice.result.images == 16);
  // And drop path knows the second batch's images from the first's.
  const std::vector<std::string> dropping{"run.dtype=f64", "model.drop_path_rate=0.5"};
  const Step a = one_step(dropping, {noise_batch(16)}), b = one_step(dropping, {noise_batch(8), noise_batch(8, 8)});
  CHECK(a.result.loss == doctest::Approx(b.result.loss).epsilon(1e-6));
}

TEST_CASE("training: recomputed activations change no bit") {
  for (const char* dtype : {"f32", "bf16"}) {
    CAPTURE(dtype);
    const std::vector<std::string> plain{str("run.dtype=", dtype)}, lean{plain[0], "run.checkpoint_activations=true"};
    const Step kept = one_step(plain, {noise_batch(8)}), recomputed = one_step(lean, {noise_batch(8)});
    CHECK(kept.result.loss == recomputed.result.loss);
    CHECK(kept.result.gradient.parameters == recomputed.result.gradient.parameters);
    CHECK(kept.result.entropies.sums == recomputed.result.entropies.sums);
    CHECK(kept.weights == recomputed.weights);
  }
}

TEST_CASE("training: bf16 activations come near to f32, and learn") {
  const Step exact = one_step({}, {noise_batch(8)}), rounded = one_step({"run.dtype=bf16"}, {noise_batch(8)});
  CHECK(exact.result.loss != rounded.result.loss);
  CHECK(exact.result.loss == doctest::Approx(rounded.result.loss).epsilon(0.02));
  CHECK(exact.result.gradient.total == doctest::Approx(rounded.result.gradient.total).epsilon(0.1));
  const ScratchFolder folder;
  write_tiny_images(folder / "data");
  REQUIRE(train(tiny_recipe(folder / "data", {"run.dtype=bf16"}), folder / "run") == 0);
  const std::vector<double> loss = read_csv(folder / "run" / "steps.csv", {"bound_kind", "bound_blame"}).numbers("loss");
  for (const double l : loss) CHECK(std::isfinite(l));
}

TEST_CASE("training: a damaged image counts for nothing") {
  Batch damaged = noise_batch(8);
  damaged.valid[5] = 0;
  std::fill_n(damaged.images.begin() + 5 * 64, 64, 0);
  std::vector<Batch> rest{noise_batch(5), noise_batch(2, 6)};
  rest[0].count = 7;
  for (int i = 0; i < 2; i++) {
    rest[0].labels.push_back(rest[1].labels[i]);
    rest[0].samples.push_back(rest[1].samples[i]);
    rest[0].erase.push_back({});
    rest[0].valid.push_back(1);
  }
  rest[0].images.insert(rest[0].images.end(), rest[1].images.begin(), rest[1].images.end());
  rest.pop_back();
  const std::vector<std::string> set{"run.dtype=f64", "model.drop_path_rate=0"};
  const Step with = one_step(set, {damaged}), without = one_step(set, rest);
  CHECK(with.result.loss == doctest::Approx(without.result.loss).epsilon(1e-6));
  CHECK(largest_difference(with.weights, without.weights) < 1e-6);
}

TEST_CASE("training: evaluation counts ties and non-numbers against the model") {
  Training training(tiny_recipe("unused"), false);
  const Input input = make_input(noise_batch(9), training.recipe, 0, 0, false);
  EvalResult sums;
  Tensor logits;
  training.evaluate(input, sums, &logits);
  CHECK(sums.images == 9);
  CHECK(sums.top5 == 9);   // three classes
  double right = 0;
  const std::vector<double> x = logits.values();
  for (int i = 0; i < 9; i++) right += std::max_element(x.begin() + 3 * i, x.begin() + 3 * i + 3) - x.begin() - 3 * i == i % 3;
  CHECK(sums.top1 == right);

  const Tensor& values = training.model->store.values();
  std::fill_n(values.data<float>(), values.size(), 0.0f);   // every class gets 0: nothing is told apart
  EvalResult tied;
  training.evaluate(input, tied);
  CHECK(tied.top1 == 0);
  CHECK(tied.loss == doctest::Approx(9 * std::log(3.0)));
}

namespace {

// What a training ends with that is refused.
std::string refusal(const Recipe& recipe, const fs::path& run, bool resume) {
  try {
    train(recipe, run, resume);
  } catch (const Error& error) {
    CHECK(error.exit == Exit::failure);
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("training: a poisoned weight is named, the update refused, the last steps kept") {
  const ScratchFolder folder;
  write_tiny_images(folder / "data");
  const RunPaths run{folder / "run"};
  REQUIRE(train(tiny_recipe(folder / "data", {"schedule.epochs=1"}), run.root) == 0);
  const Recipe longer = tiny_recipe(folder / "data", {"schedule.epochs=20"});
  Training training(longer, true);
  const Position position = load_checkpoint(newest_checkpoint(run), training);
  training.model->store.raw(training.model->store.find("layers.1.blocks.0.mlp.fc1.weight")).data<float>()[3] = NAN;
  fs::remove_all(run.checkpoint(position.step));
  save_checkpoint(run, training, position, 2);
  const std::string before = bytes_of(newest_checkpoint(run) / "model.safetensors");

  const std::string said = refusal(longer, run.root, true);
  CHECK(said.find("layers.1.blocks.0.mlp.fc1") != std::string::npos);
  CHECK(said.find('\n') == std::string::npos);
  CHECK(run.sealed_checkpoints() == std::vector<int64_t>{5});
  CHECK(bytes_of(newest_checkpoint(run) / "model.safetensors") == before);
  CHECK(read_csv(run.steps(), {"bound_kind", "bound_blame"}).rows == 5);
  const CsvData events = read_csv(run.events(), {"kind", "layer", "message"});
  CHECK(events.texts("kind").back() == "non_finite");
  CHECK(events.texts("layer").back().starts_with("layers.1.blocks.0.mlp.fc1"));
  const auto recorder = nlohmann::json::parse(bytes_of(run.flight_recorder()));
  CHECK(recorder["step"] == 5);
  CHECK(recorder["layer"].get<std::string>().starts_with("layers.1.blocks.0.mlp.fc1"));
  CHECK(recorder["steps"].is_array());
}

TEST_CASE("training: a run that blows up is stopped, with the steps before it on record") {
  const ScratchFolder folder;
  write_tiny_images(folder / "data");
  const std::vector<std::string> wild{"optimizer.lr=1e18", "optimizer.clip_grad=0", "parts.norm=none", "parts.attention=dot"};
  const std::string said = refusal(tiny_recipe(folder / "data", wild), folder / "run", false);
  CHECK(said.find("first non-finite") != std::string::npos);
  const auto recorder = nlohmann::json::parse(bytes_of(folder / "run" / "flight_recorder.json"));
  CHECK(!recorder["layer"].get<std::string>().empty());
  CHECK(recorder["steps"].size() >= 1);
  CHECK(recorder["steps"][0]["step"] == 0);
}

TEST_CASE("training: the layer where infinity begins is found in the activations too") {
  Training training(tiny_recipe("unused", {"parts.norm=none", "parts.attention=dot"}), true);
  const auto fill = [&](const char* name, float value) {   // each number is finite; their products are not
    const Tensor weight = training.model->store.raw(training.model->store.find(name));
    std::fill_n(weight.data<float>(), weight.size(), value);
  };
  fill("layers.0.blocks.0.mlp.fc1.bias", 1e3f);
  fill("layers.0.blocks.0.mlp.fc2.weight", 3e38f);
  const std::vector<Input> inputs{make_input(noise_batch(8), training.recipe, 0, 0, true)};
  const StepResult result = training.gradients(inputs, 0);
  CHECK(!(std::isfinite(result.loss) && std::isfinite(result.gradient.total)));
  const NonFinite first = training.first_non_finite(inputs, 0);
  CHECK(first.layer == "layers.0.blocks.0.mlp.fc2");
  CHECK(first.where == "output");
}
