// fuse.cpp: folding. A norm over the batch is y = a x + d in evaluation, so W y + b = (W diag(a)) x + (W d + b), and a (U z + u) + d =
// (diag(a) U) z + (a u + d).
#include "train/fuse.h"

#include <cmath>
#include <cstring>

namespace {

// All that a model has learned, by name, in f64; a bias that is not there is made when something is folded into it.
using Values = std::map<std::string, std::vector<double>>;

const std::string& name_of(const Parameter& p) { return p.store->parameters()[p.index].name; }

// "a.b.weight" -> "a.b.bias"
std::string bias_name(const Weight& weight) {
  const std::string& name = name_of(weight.raw);
  return name.substr(0, name.size() - std::string("weight").size()) + "bias";
}

std::vector<double>& bias_of(Values& values, const Weight& weight) {
  std::vector<double>& bias = values[bias_name(weight)];
  bias.resize(size_t(weight.raw.info().shape[0]), 0.0);
  return bias;
}

// What evaluation multiplies with, but for the layer's own factor, which a plain weight has too.
Values effective_values(Training& source) {
  const ParameterStore& store = source.model->store;
  source.spectral->iterate(false);
  Values values;
  for (size_t i = 0; i < store.parameters().size(); i++) values[store.parameters()[i].name] = store.raw(int(i)).values();
  for (const auto& spectral : store.spectral_weights) {
    const double gain = store.raw_buffer(spectral.alpha).item() / spectral.factor;
    for (double& w : values[store.parameters()[spectral.weight].name]) w *= gain;
  }
  for (const auto& [weight, gain] : store.row_gains) {
    std::vector<double>& w = values[store.parameters()[weight].name];
    const std::vector<double> gains = store.raw(gain).values();
    const size_t columns = w.size() / gains.size();
    for (size_t r = 0; r < gains.size(); r++) {
      double squares = 0;
      for (size_t c = 0; c < columns; c++) squares += w[r * columns + c] * w[r * columns + c];
      for (size_t c = 0; c < columns && squares > 0; c++) w[r * columns + c] *= gains[r] / std::sqrt(squares);
    }
  }
  return values;
}

void fold_into_reader(Values& values, const Norm::ChannelMap& map, const Weight& weight) {
  std::vector<double>&w = values[name_of(weight.raw)], &bias = bias_of(values, weight);
  const size_t columns = map.scale.size();
  check(w.size() == columns * bias.size(), "[fuse] ", name_of(weight.raw), " does not read the ", columns, " channels of the norm in front of it");
  for (size_t r = 0; r < bias.size(); r++)
    for (size_t c = 0; c < columns; c++) {
      bias[r] += weight.factor * w[r * columns + c] * map.shift[c];
      w[r * columns + c] *= map.scale[c];
    }
}

void fold_into_source(Values& values, const Norm::ChannelMap& map, const Weight& weight) {
  std::vector<double>&w = values[name_of(weight.raw)], &bias = bias_of(values, weight);
  check(bias.size() == map.scale.size(), "[fuse] ", name_of(weight.raw), " does not make the ", map.scale.size(), " channels of the norm behind it");
  const size_t columns = w.size() / bias.size();
  for (size_t r = 0; r < bias.size(); r++) {
    for (size_t c = 0; c < columns; c++) w[r * columns + c] *= map.scale[r];
    bias[r] = map.scale[r] * bias[r] + map.shift[r];
  }
}

void fold_norms(Values& values, const Model& model) {
  for (const NormFold& fold : model.norm_folds()) {
    if (!fold.norm->part.over_the_batch()) continue;
    const Norm::ChannelMap map = fold.norm->channel_map();
    for (const Weight* reader : fold.readers) fold_into_reader(values, map, *reader);
    if (fold.source) fold_into_source(values, map, *fold.source);
  }
}

void set(const Tensor& to, const std::vector<double>& values) {
  const Tensor from = Tensor::from(to.shape(), values, to.dtype());
  std::memcpy(to.raw(), from.raw(), from.bytes());
}

}  // namespace

Recipe fused_recipe(const Training& source) {
  Recipe recipe = source.recipe;
  recipe.parts.weight = "plain";
  if (!source.model->store.batch_statistics) return recipe;
  recipe.parts.norm = "none";
  recipe.model.qkv_bias = true;
  recipe.model.merge_bias = recipe.model.family == "swin";
  return recipe;
}

std::unique_ptr<Training> fuse(Training& source) {
  const bool norms = source.model->store.batch_statistics;
  if (!norms && source.recipe.parts.weight == "plain")
    fail(Exit::config, "there is nothing to fold: parts.norm \"", source.recipe.parts.norm,
         "\" measures every input anew, and parts.weight is \"plain\" already");
  Values values = effective_values(source);
  if (norms) fold_norms(values, *source.model);
  auto fused = std::make_unique<Training>(fused_recipe(source), false);
  ParameterStore& store = fused->model->store;
  for (size_t i = 0; i < store.parameters().size(); i++) {
    const ParameterInfo& info = store.parameters()[i];
    const auto value = values.find(info.name);
    set(store.raw(int(i)), value == values.end() ? std::vector<double>(size_t(info.size()), 0.0) : value->second);
  }
  for (size_t i = 0; i < store.buffers().size(); i++) {
    const int from = source.model->store.find_buffer(store.buffers()[i].name);
    if (from >= 0) set(store.raw_buffer(int(i)), source.model->store.raw_buffer(from).values());
  }
  store.host_changed();
  store.host_changed_buffers();
  return fused;
}

double logit_difference(Training& a, Training& b) {
  constexpr int64_t count = 2;
  const ModelRecipe& m = a.recipe.model;
  const RandomStream stream(uint64_t(a.recipe.run.seed), "logit_difference");
  Input input;
  if (m.family == "gpt") {
    std::vector<int> tokens(size_t(count * m.context));
    for (size_t i = 0; i < tokens.size(); i++) tokens[i] = int(stream.words(0, i, 0)[0] % uint32_t(m.vocab_size));
    input.tokens = Tensor::from({count, m.context}, tokens, DType::i32);
  } else {
    const Shape shape{count, m.in_chans, m.img_size, m.img_size};
    std::vector<double> images(size_t(shape.size()));
    for (size_t i = 0; i < images.size(); i++) images[i] = normal_from(stream.words(0, i, 0)[0], stream.words(0, i, 0)[1]);
    input.images = Tensor::from(shape, images, recipe_dtype(a.recipe));
  }
  const std::vector<double> x = a.logits(input).values(), y = b.logits(input).values();
  double difference = 0, largest = 0;
  for (size_t i = 0; i < x.size(); i++) {
    // A comparison that NaN fails would call it no difference.
    difference = std::isfinite(x[i] - y[i]) ? std::max(difference, std::abs(x[i] - y[i])) : INFINITY;
    largest = std::max(largest, std::abs(x[i]));
  }
  return difference / std::max(largest, 1e-30);
}
