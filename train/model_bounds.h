// model_bounds.h: the Lipschitz bound of a model in training: as it stands, and as a constraint promises it.
#pragma once
#include <nlohmann/json.hpp>

#include "train/training.h"

struct ModelBound {
  BoundTrace trace;   // every layer; the last one is "network"
  Bound features;     // from normalised pixels to what the classifier reads
  Bound network;      // to the logits
};

// The longest a normalised patch can be: every pixel at the end of [0, 1] that lies farther from the mean.
double patch_radius(const Recipe& recipe, int patch);
// The bound of the model's map as it stands, for pixels in [0, 1] normalised as the recipe says.
ModelBound bound_model(const Training& training, const NormSource& norms);
// The bound that the recipe's constraint promises, whatever the weights become; infinite constants where it promises none.
Bound promised_bound(const Training& training);
// {"name", "kind", "join": leaf, product or sum, "skip" and "weight" of a sum, "parts"}; names and kinds where there are any.
nlohmann::json to_json(const BoundTree& tree);
