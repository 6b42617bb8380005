// checkpoint.cpp: saving and loading the state of a run.
#include "train/checkpoint.h"

#include <nlohmann/json.hpp>

#include "engine/durable_file.h"
#include "train/sealed_folder.h"
#include "train/weights.h"

namespace {

constexpr int format_version = 1;

std::string hash_text(const Recipe& recipe) { return std::to_string(model_hash(recipe)); }

void restore(const SafetensorsFile& file, const std::string& name, const Tensor& to) {
  const auto it = file.tensors().find(name);
  if (it == file.tensors().end()) fail(Exit::bad_data, file.path(), " lacks ", name, ": the checkpoint was made with other settings");
  const Tensor from = to_tensor(it->second, to.dtype(), file.path() + ": " + name);
  if (from.size() != to.size()) fail(Exit::bad_data, file.path(), " belongs to another model: ", name, " is ", from.shape(), ", expected ", to.shape());
  to.copy_from(from);
}

}  // namespace

void save_checkpoint(const RunPaths& paths, Training& training, const Position& position, int keep) {
  // Every rank takes part in gathering what is spread over them.
  std::map<std::string, Tensor> of_optimizer;
  const auto packings = training.optimizer->packings();
  for (const auto& [name, tensor] : training.optimizer->state())
    of_optimizer[name] = packings.contains(name) ? training.parallel->whole(*tensor, *packings.at(name), name) : *tensor;
  if (!training.parallel->leads()) return;
  const std::filesystem::path folder = paths.checkpoint(position.step);
  if (is_sealed(folder)) return;   // this very step was saved before
  std::filesystem::remove_all(folder);
  make_folders(folder);
  const ParameterStore& store = training.model->store;
  std::map<std::string, SafetensorsEntry> model = weight_entries(store, training.model->store.values());
  model.merge(buffer_entries(store));
  write_safetensors((folder / "model.safetensors").string(), model,
                    {{"format", "pt"}, {"model_hash", hash_text(training.recipe)}});
  const Tensor vectors = Tensor::from(Shape{int64_t(training.norms->state().size())}, training.norms->state(), DType::f32);
  const Tensor measured = Tensor::from(Shape{int64_t(training.norms->measured().size())}, training.norms->measured(), DType::f64);
  std::vector<Tensor> copies;   // of what lies on a GPU, until it is written
  const auto on_host = [&](const Tensor& tensor) { return copies.emplace_back(tensor.device() == Device{} ? tensor : tensor.to(Device{})); };
  std::map<std::string, SafetensorsEntry> state{{"power_iteration", to_entry(vectors)}, {"spectral_norms", to_entry(measured)}};
  for (const auto& [name, tensor] : of_optimizer) state[name] = to_entry(on_host(tensor));
  if (training.optimizer->ema)
    for (auto& [name, entry] : weight_entries(store, on_host(training.optimizer->ema), "ema.")) state[name] = entry;
  write_safetensors((folder / "state.safetensors").string(), state);
  const nlohmann::json json{{"version", format_version}, {"step", position.step}, {"epoch", position.epoch}, {"batch", position.batch},
                            {"optimizer_steps", training.optimizer->steps}, {"model_hash", hash_text(training.recipe)}};
  write_file_atomically(folder / "state.json", json.dump(1) + "\n");
  seal_folder(folder);
  std::vector<int64_t> all = paths.sealed_checkpoints();
  for (size_t i = 0; i + size_t(keep) < all.size(); i++) remove_sealed(paths.checkpoint(all[i]));
}

Position load_checkpoint(const std::filesystem::path& folder, Training& training) {
  verify_sealed(folder);
  nlohmann::json json;
  Position position;
  try {
    json = nlohmann::json::parse(read_file(folder / "state.json"));
    if (json.at("version") != format_version) fail(Exit::bad_data, folder.string(), " was written by another version of lipsgrad");
    if (json.at("model_hash") != hash_text(training.recipe))
      fail(Exit::bad_data, folder.string(), " belongs to another model: the recipe's [model] or [parts] differ from those it was made with");
    position = {json.at("step"), json.at("epoch"), json.at("batch")};
    training.optimizer->steps = json.at("optimizer_steps");
  } catch (const nlohmann::json::exception& e) {
    fail(Exit::bad_data, (folder / "state.json").string(), " is damaged: ", e.what());
  }
  load_weights(training.model->store, SafetensorsFile((folder / "model.safetensors").string()), false);
  const SafetensorsFile state((folder / "state.safetensors").string());
  const auto packings = training.optimizer->packings();
  for (const auto& [name, tensor] : training.optimizer->state()) {
    if (!packings.contains(name)) {
      restore(state, name, *tensor);
      continue;
    }
    const Tensor whole = Tensor::empty({packings.at(name)->whole_size}, tensor->dtype());
    restore(state, name, whole);
    training.parallel->take_mine(whole, *packings.at(name), *tensor);
  }
  const Tensor vectors = Tensor::empty({int64_t(training.norms->state().size())}, DType::f32);
  const Tensor measured = Tensor::empty({int64_t(training.norms->measured().size())}, DType::f64);
  restore(state, "power_iteration", vectors);
  restore(state, "spectral_norms", measured);
  training.norms->restore({vectors.data<float>(), vectors.data<float>() + vectors.size()}, measured.values());
  if (training.optimizer->ema)
    for (size_t i = 0; i < training.model->store.parameters().size(); i++)
      restore(state, "ema." + training.model->store.parameters()[i].name, training.model->store.slice_of(training.optimizer->ema, int(i)));
  return position;
}

std::filesystem::path newest_checkpoint(const RunPaths& paths) {
  const std::vector<int64_t> all = paths.sealed_checkpoints();
  if (all.empty()) fail(Exit::no_input, paths.root.string(), " has no complete checkpoint yet");
  return paths.checkpoint(all.back());
}
