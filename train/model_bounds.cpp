// model_bounds.cpp: what a model's bound starts from, and what is claimed of it.
#include "train/model_bounds.h"

#include "train/promised_norms.h"

double patch_radius(const Recipe& recipe, int patch) {
  double squares = 0;
  for (size_t c = 0; c < recipe.augment.mean.size(); c++) {
    const double mean = recipe.augment.mean[c], far = std::max(std::abs(mean), std::abs(1 - mean)) / recipe.augment.std[c];
    squares += far * far * patch * patch;
  }
  return std::sqrt(squares) * (1 + 1e-12);
}

ModelBound bound_model(const Training& training, const NormSource& norms) {
  const Model& model = *training.model;
  ModelBound result{{norms, {}, training.temperature}, {}, {}};
  const size_t last = model.stages.size() - 1;
  const Bound features = model.bound(0, last, model.input_domain(patch_radius(training.recipe, model.input_patch)), result.trace);
  result.features = claimed(features);
  result.network = result.trace.note("network", "Network", claimed(then(features, model.bound(last, last + 1, features.out, result.trace))));
  return result;
}

Bound promised_bound(const Training& training) {
  static const std::vector<std::string> promising{"spectral_normalize", "stiefel", "spectral_soft_cap", "spectral_hard_cap"};
  const ConstraintRecipe& constraint = training.recipe.constraint;
  const bool promises = std::find(promising.begin(), promising.end(), constraint.method) != promising.end();
  if (!promises || !PromisedNorms::covers(training.model->store)) return Bound::without_bound("", {});
  const PromisedNorms norms(constraint.sigma_max);
  return bound_model(training, norms).network;
}

nlohmann::json to_json(const BoundTree& tree) {
  static const char* const joins[] = {"leaf", "product", "sum"};
  nlohmann::json json{{"join", joins[tree.join]}};
  if (!tree.name.empty()) json["name"] = tree.name;
  if (!tree.kind.empty()) json["kind"] = tree.kind;
  if (tree.join == BoundTree::sum) json["skip"] = tree.skip, json["weight"] = tree.weight;
  for (const auto& part : tree.parts) json["parts"].push_back(to_json(*part));
  return json;
}
