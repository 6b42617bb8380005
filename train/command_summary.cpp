// command_summary.cpp: `lipsgrad summary`: the layers of a recipe's model, with shapes, parameters, multiply-adds and bounds.
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "models/gpt.h"
#include "train/commands.h"
#include "train/load_model.h"
#include "train/model_bounds.h"
#include "train/promised_norms.h"
#include "train/tree_text.h"

namespace {

int64_t parameters_below(const ParameterStore& store, const std::string& layer) {
  int64_t n = 0;
  for (const ParameterInfo& info : store.parameters())
    if (info.name.starts_with(layer + ".")) n += info.size();
  return n;
}

nlohmann::json log10_or_null(Real x) { return std::isfinite(x) ? nlohmann::json(double(std::log10(x))) : nlohmann::json(); }

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
  training.spectral->iterate(false);
  training.model->forward(input, mode);
  const int64_t macs = profile.macs();
  const ModelBound bound = bound_model(training, *training.norms);
  const Bound& network = bound.network;

  int64_t frozen = 0;   // what PyTorch counts as parameters that do not learn
  for (const BufferInfo& info : store.buffers()) frozen += info.frozen ? info.shape.size() : 0;
  nlohmann::json json{{"parameters", store.count() + frozen}, {"parameters_frozen", frozen}, {"macs", macs}, {"heads", training.model->heads()},
                      {"bound", {{"kind", name_of(network.kind)}, {"blame", network.blame}}}};
  const Bound promised = promised_bound(training);
  json["bound"]["log10_promised_rms"] = log10_or_null(promised.rms);
  json["bound"]["log10_promised_l2"] = log10_or_null(promised.lipschitz);
  json["bound"]["log10_rms"] = log10_or_null(network.rms);
  json["bound"]["log10_l2"] = log10_or_null(network.lipschitz);
  json["bound"]["tree"] = to_json(*network.tree);
  int64_t decayed = 0;
  for (const ParameterInfo& info : store.parameters()) decayed += info.decays() ? info.size() : 0;
  json["parameters_decayed"] = decayed;
  const bool list = !options.json && !options.tree;
  if (options.tree && !options.json) fmt::print("{}", tree_text(bound_node(*network.tree), {}));
  if (list) fmt::print("{:<28}{:<20}{:>14}{:>16}{:>14}\n", "layer", "output", "parameters", "MACs", "bound");
  for (const LayerTrace& layer : shapes) {
    Real own = NAN;
    for (const auto& b : bound.trace.layers)
      if (b.name == layer.name) own = b.bound.lipschitz;
    int64_t layer_macs = 0;
    for (const auto& [name, ops] : profile.layers)
      if (name == layer.name || name.starts_with(layer.name + "."))
        for (const auto& [op, cost] : ops) layer_macs += cost.macs;
    const int64_t parameters = parameters_below(store, layer.name);
    if (list)
      fmt::print("{:<28}{:<20}{:>14}{:>16}{:>14.6g}\n", layer.name, str(layer.out), fmt::format("{:L}", parameters), layer_macs, own);
    json["layers"].push_back({{"name", layer.name}, {"output", layer.out.dims()}, {"parameters", parameters}, {"macs", layer_macs},
                              {"log10_bound", log10_or_null(own)}});
  }
  if (options.json) {
    fmt::print("{}\n", json.dump());
    return int(Exit::ok);
  }
  fmt::print("\nparameters  {} ({} with weight decay, {} with little, {} frozen)\nMACs        {} for one {} ({:.3f} G)\nheads       {}\n",
             store.count() + frozen,
             decayed, store.count() - decayed, frozen, macs, training.model->context ? "sequence" : "image", double(macs) / 1e9, training.model->heads());
  // Bounds that a constraint promises whatever training does, and what the paper's own formula says of them.
  if (std::isfinite(promised.rms)) {
    fmt::print("promised    {:.6g} at every step (certified, rms, {}), {:.6g} in l2\n", promised.rms,
               training.model->context ? "embedded tokens to logits" : "patches to logits", promised.lipschitz);
    const PromisedNorms norms(recipe.constraint.sigma_max);
    if (const Gpt* gpt = dynamic_cast<const Gpt*>(training.model.get()); gpt && recipe.parts.qkv == "separate" && recipe.parts.residual == "convex")
      fmt::print("published   {:.6g} by the paper's formula, {:.6g} with all norms a tenth above the cap: not a bound, see docs\n", gpt->published_bound(norms),
                 gpt->published_bound(norms, 1.1));
  }
  for (const Attention* a : training.model->attentions()) {
    if (a->part.similarity != Similarity::cosine_bounded) continue;
    const Attention::CosineConstants c = a->cosine_constants(*training.norms);
    fmt::print("attention   {}: {:.4g} by LipsFormer's theorem 1, {:.4g} refined, {:.4g} here (l2, estimate)\n", a->name, c.theorem, c.refined, c.ours);
  }
  if (network.kind == BoundKind::unbounded) fmt::print("bound       unbounded at initialisation: {} has none\n", network.blame);
  else fmt::print("bound       {:.6g} at initialisation ({}, l2, normalised pixels to logits)\n", network.lipschitz, name_of(network.kind));
  return int(Exit::ok);
}
