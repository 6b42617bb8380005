// command_forward.cpp: `lipsgrad forward`: a model on given inputs, everything written out, to be held against PyTorch.
#include <algorithm>
#include <cmath>
#include <deque>
#include <fmt/format.h>

#include "train/commands.h"
#include "train/model_bounds.h"
#include "train/weights.h"

namespace {

const SafetensorsEntry& entry(const SafetensorsFile& file, const std::string& name) {
  const auto it = file.tensors().find(name);
  if (it == file.tensors().end()) fail(Exit::bad_data, file.path(), " needs a tensor `", name, "`");
  return it->second;
}

// tokens and labels i64 [B, T]; without labels each token's label is the next one.
Input read_text(const SafetensorsFile& file, const ModelRecipe& m) {
  const auto read = [&](const std::string& name) {
    const Tensor all = to_tensor(entry(file, name), DType::f64, file.path() + ": " + name);
    if (all.shape().rank() != 2 || all.dim(1) != m.context)
      fail(Exit::bad_data, file.path(), ": ", name, " is ", all.shape(), ", expected [B, ", m.context, "]");
    std::vector<int32_t> numbers;
    for (const double v : all.values()) {
      const double least = name == "labels" ? -1 : 0;
      if (!(v >= least && v < m.vocab_size)) fail(Exit::bad_data, file.path(), ": ", name, " has ", v, ", which is not below ", m.vocab_size);
      numbers.push_back(int32_t(v));
    }
    return Tensor::from(all.shape(), numbers, DType::i32);
  };
  Input input;
  input.tokens = read("tokens");
  input.labels = read("labels");
  if (input.labels.shape() != input.tokens.shape()) fail(Exit::bad_data, file.path(), ": labels are ", input.labels.shape(), ", tokens ", input.tokens.shape());
  const int32_t* labels = input.labels.data<int32_t>();
  input.valid = std::count_if(labels, labels + input.labels.size(), [](int32_t label) { return label >= 0; });
  return input;
}

Input read_input(const SafetensorsFile& file, const Recipe& recipe) {
  const DType dtype = recipe_dtype(recipe);
  const ModelRecipe& m = recipe.model;
  if (m.family == "gpt") return read_text(file, m);
  Input input;
  input.images = to_tensor(entry(file, "images"), dtype, file.path() + ": images");
  const Shape expected{input.images.dim(0), m.in_chans, m.img_size, m.img_size};
  if (input.images.shape() != expected) fail(Exit::bad_data, file.path(), ": images is ", input.images.shape(), ", expected ", expected);
  const int64_t batch = input.images.dim(0);
  if (file.tensors().contains("targets")) {
    input.targets = to_tensor(entry(file, "targets"), dtype, file.path() + ": targets");
    if (input.targets.shape() != Shape{batch, m.num_classes})
      fail(Exit::bad_data, file.path(), ": targets is ", input.targets.shape(), ", expected ", Shape{batch, m.num_classes});
  } else {
    const std::vector<double> labels = to_tensor(entry(file, "labels"), DType::f64, file.path() + ": labels").values();
    if (int64_t(labels.size()) != batch) fail(Exit::bad_data, file.path(), ": ", labels.size(), " labels for ", batch, " images");
    std::vector<double> one_hot(batch * m.num_classes, 0.0);
    for (int64_t i = 0; i < batch; i++) {
      if (!(labels[i] >= 0 && labels[i] < m.num_classes)) fail(Exit::bad_data, file.path(), ": label ", labels[i], " is not below ", m.num_classes);
      one_hot[i * m.num_classes + int64_t(labels[i])] = 1;
    }
    input.targets = Tensor::from(Shape{batch, m.num_classes}, one_hot, dtype);
  }
  input.valid = batch;
  return input;
}

}  // namespace

int run_forward(const ForwardOptions& options) {
  const Recipe recipe = load_recipe(options.recipe, options.set);
  Training training(recipe, true);
  ParameterStore& store = training.model->store;
  const std::set<std::string> loaded = load_weights(store, SafetensorsFile(options.weights), options.partial);
  training.spectral->adopt(training.workers, loaded);
  const SafetensorsFile file(options.input);
  const std::vector<Input> inputs{read_input(file, recipe)};

  std::deque<Tensor> kept;   // what the entries point to
  std::map<std::string, SafetensorsEntry> out;
  const auto put = [&](const std::string& name, const Tensor& t) {
    kept.push_back(t.to(t.dtype()));
    out[name] = to_entry(kept.back());
  };
  const auto put_numbers = [&](const std::string& name, const Shape& shape, const std::vector<double>& v) { put(name, Tensor::from(shape, v, DType::f64)); };

  // Random parts are off in both; training has statistics of this batch and buffers that remember them.
  const Pass pass = options.train ? Pass::deterministic : Pass::evaluation;
  // What the forward does to the buffers is undone: the steps begin where the file did.
  const Tensor buffers = store.buffer_values().to(store.device());
  put("logits", training.logits(inputs[0], pass));
  store.buffer_values().copy_from(buffers);
  store.device_changed_buffers();
  const StepResult first = training.gradients(inputs, 0, pass);
  put_numbers("loss", {1}, {first.loss});
  for (size_t i = 0; i < store.parameters().size(); i++)
    put("grad." + store.parameters()[i].name, store.slice_of(store.gradient(0).to(Device{}), int(i)));
  for (const Attention* a : training.model->attentions()) {
    std::vector<double> entropy;
    for (int h = 0; h < a->place.heads; h++) entropy.push_back(first.entropies.sums[a->first_head + h] / first.entropies.samples);
    put_numbers("entropy." + a->name, {a->place.heads}, entropy);
  }
  training.norms->iterate(training.workers, 200);
  for (size_t i = 0; i < store.parameters().size(); i++)
    if (training.norms->has(int(i))) put_numbers("sigma." + store.parameters()[i].name, {1}, {training.norms->sigma(int(i))});
  put_numbers("bound", {1}, {double(bound_model(training, *training.norms).network.lipschitz)});

  if (options.steps > 0) {
    std::vector<double> losses;
    for (int step = 0; step < options.steps; step++) {
      const StepResult result = step == 0 ? first : training.gradients(inputs, uint32_t(step), pass);
      losses.push_back(result.loss);
      training.update(recipe.optimizer.lr, result);
    }
    put_numbers("losses", {options.steps}, losses);
    for (size_t i = 0; i < store.parameters().size(); i++) put("weight." + store.parameters()[i].name, store.raw(int(i)));
  }
  write_safetensors(options.output, out);
  fmt::print("loss {}\n", first.loss);
  return int(Exit::ok);
}
