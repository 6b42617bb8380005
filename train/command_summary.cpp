// command_summary.cpp: `lipsgrad summary`: the layers of a recipe's model, with shapes, parameters, multiply-adds and bounds.
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "models/gpt.h"
#include "train/commands.h"
#include "train/ledger.h"
#include "train/load_model.h"
#include "train/promised_norms.h"

namespace {

int64_t parameters_below(const ParameterStore& store, const std::string& layer) {
  int64_t n = 0;
  for (const ParameterInfo& info : store.parameters())
    if (info.name.starts_with(layer + ".")) n += info.size();
  return n;
}

}  // namespace

int run_summary(const SummaryOptions& options) {
  Recipe recipe = load_recipe(options.recipe, options.set);
  Training training(recipe, false);
  training.norms->iterate(training.workers, 30);
  const ParameterStore& store = training.model->store;

  // One image through the model, for shapes and counts.
  const int64_t patch = training.model->input_patch, side = patch ? recipe.model.img_size / patch : 0;
  const Tensor input = training.model->context ? Tensor::zeros({1, training.model->context}, DType::i32)
                                               : Tensor::zeros({1, side * side, recipe.model.in_chans * patch * patch}, recipe_dtype(recipe));
  std::vector<LayerTrace> shapes;
  Mode mode;
  mode.trace = &shapes;
  Profile profile;
  training.spectral->iterate(training.workers, false);
  training.model->forward(input, mode);
  const int64_t macs = profile.macs();
  const BoundTrace bounds = bound_model(training);
  const Bound& network = bounds.layers.back().bound;

  int64_t frozen = 0;   // what PyTorch counts as parameters that do not learn
  for (const BufferInfo& info : store.buffers()) frozen += info.frozen ? info.shape.size() : 0;
  nlohmann::json json{{"parameters", store.count() + frozen}, {"parameters_frozen", frozen}, {"macs", macs}, {"heads", training.model->heads()},
                      {"bound", {{"kind", name_of(network.kind)}, {"blame", network.blame}}}};
  const double promised = promised_bound(training);
  json["bound"]["promised_rms"] = std::isfinite(promised) ? nlohmann::json(promised) : nlohmann::json();
  json["bound"]["rms"] = std::isfinite(network.rms) ? nlohmann::json(network.rms) : nlohmann::json();
  json["bound"]["l2"] = network.kind == BoundKind::unbounded ? nlohmann::json() : nlohmann::json(network.lipschitz);
  int64_t decayed = 0;
  for (const ParameterInfo& info : store.parameters()) decayed += info.decays() ? info.size() : 0;
  json["parameters_decayed"] = decayed;
  if (!options.json) fmt::print("{:<28}{:<20}{:>14}{:>16}{:>14}\n", "layer", "output", "parameters", "MACs", "bound");
  for (const LayerTrace& layer : shapes) {
    double bound = NAN;
    for (const auto& b : bounds.layers)
      if (b.name == layer.name) bound = b.bound.lipschitz;
    int64_t layer_macs = 0;
    for (const auto& [name, n] : profile.layer_macs)
      if (name == layer.name || name.starts_with(layer.name + ".")) layer_macs += n;
    const int64_t parameters = parameters_below(store, layer.name);
    if (!options.json)
      fmt::print("{:<28}{:<20}{:>14}{:>16}{:>14.6g}\n", layer.name, str(layer.out), fmt::format("{:L}", parameters), layer_macs, bound);
    json["layers"].push_back({{"name", layer.name}, {"output", layer.out.dims()}, {"parameters", parameters}, {"macs", layer_macs},
                              {"bound", std::isfinite(bound) ? nlohmann::json(bound) : nlohmann::json()}});
  }
  if (options.json) {
    fmt::print("{}\n", json.dump());
    return int(Exit::ok);
  }
  fmt::print("\nparameters  {} ({} with weight decay, {} with little, {} frozen)\nMACs        {} for one {} ({:.3f} G)\nheads       {}\n",
             store.count() + frozen,
             decayed, store.count() - decayed, frozen, macs, training.model->context ? "sequence" : "image", double(macs) / 1e9, training.model->heads());
  // Bounds that a constraint promises whatever training does, and what the paper's own formula says of them.
  if (std::isfinite(promised)) {
    fmt::print("promised    {:.6g} at every step (certified, rms, {})\n", promised,
               training.model->context ? "embedded tokens to logits" : "patches to logits");
    const PromisedNorms norms(recipe.constraint.sigma_max);
    if (const Gpt* gpt = dynamic_cast<const Gpt*>(training.model.get()); gpt && recipe.parts.qkv == "separate" && recipe.parts.residual == "convex")
      fmt::print("published   {:.6g} by the paper's formula, {:.6g} with all norms a tenth above the cap: not a bound, see docs\n", gpt->published_bound(norms),
                 gpt->published_bound(norms, 1.1));
  }
  if (network.kind == BoundKind::unbounded) fmt::print("bound       unbounded at initialisation: {} has none\n", network.blame);
  else fmt::print("bound       {:.6g} at initialisation ({}, l2, normalised pixels to logits)\n", network.lipschitz, name_of(network.kind));
  return int(Exit::ok);
}
