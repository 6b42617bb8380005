// step_count.cpp: the counts of a dry step by stage and part, and the floor of the same by the unit C = tokens x channels in bf16.
#include "train/step_count.h"

#include "models/cswin.h"
#include "models/swin.h"
#include "models/vit.h"

namespace {

// Zeros: only their shapes count.
Input empty_batch(const Recipe& recipe, const Model& model) {
  const int64_t count = recipe.data.batch_size, side = recipe.model.img_size;
  Input input;
  input.valid = count;
  if (model.context) {
    input.tokens = Tensor::zeros({count, model.context}, DType::i32);
    input.labels = Tensor::zeros({count, model.context}, DType::i32);
    return input;
  }
  input.pixels = Tensor::zeros({count, side, side, recipe.model.in_chans}, DType::u8);
  input.plan.mean.assign(recipe.augment.mean.begin(), recipe.augment.mean.end());
  input.plan.std.assign(recipe.augment.std.begin(), recipe.augment.std.end());
  input.targets = Tensor::zeros({count, recipe.model.num_classes}, recipe_dtype(recipe));
  return input;
}

// The stage that a block's layer stands in: "layers.0.blocks.1.mlp.fc1" in "layers.0", "stage3.0.norm1" in "stage3", "blocks.7.attn" in "blocks".
// Empty for a layer outside of blocks.
std::string stage_of_layer(const Model& model, const std::string& layer) {
  for (const auto& stage : model.stages)
    if (stage.recomputable && (layer == stage.name || layer.starts_with(stage.name + "."))) {
      const std::string blocks = stage.name.substr(0, stage.name.rfind('.'));
      return blocks.ends_with(".blocks") ? blocks.substr(0, blocks.rfind('.')) : blocks;
    }
  return "";
}

std::string part_of_layer(const std::string& layer) {
  const auto has = [&](const char* word) { return layer.find(word) != layer.npos; };
  if (has("dwconv_layers") || has(".nin") || has("scale_layers")) return "convolutions";
  if (has(".norm1") || has(".norm2") || has(".alpha1") || has(".alpha2")) return "norms and sums";
  if (layer.ends_with(".qkv") || has("q_proj") || has("k_proj") || has("v_proj")) return "qkv";
  if (layer.ends_with(".proj")) return "proj";
  if (has(".mlp")) return "mlp";
  return "attention";
}

constexpr double bf16_bytes = 2;

// Section 3.1 in units of C.
PartTraffic block_floor(double unit, int blocks, bool convolutions) {
  PartTraffic parts;
  const auto add = [&](const char* name, double forward, double backward) { parts[name] = {unit * blocks * forward, unit * blocks * backward}; };
  add("qkv", 4, 8);
  add("attention", 4, 8);
  add("proj", 2, 4);
  add("norms and sums", 8, 8);
  add("mlp", 14, 24);
  if (convolutions) add("convolutions", 12, 17);
  return parts;
}

// Pixels to patch rows, their product, the norm, and back to the weights. All counts are of numbers in bf16.
Traffic embedding_floor(double pixels, double rows, double out, bool norm) {
  const double cut = pixels / 2 + rows, product = rows + out;   // pixels are bytes
  return {bf16_bytes * (cut + product + (norm ? 2 * out : 0)), bf16_bytes * (product + (norm ? 3 * out : 0))};
}

// The last norm and the mean (or the choice) of its tokens; the classifier is of one token.
Traffic head_floor(double out) { return {bf16_bytes * 3 * out, bf16_bytes * 4 * out}; }

Traffic sum(const Traffic& a, const Traffic& b) { return {a.forward + b.forward, a.backward + b.backward}; }

StageTraffic floor_of(const Swin& model) {
  const SwinConfig& c = model.config;
  StageTraffic stages;
  double side = double(c.img_size) / c.patch_size, width = c.embed_dim;
  const double pixels = double(c.img_size) * c.img_size * c.in_chans;
  Traffic other = embedding_floor(pixels, pixels, side * side * width, true);
  for (size_t s = 0; s < c.depths.size(); s++) {
    const double numbers = side * side * width;
    stages["layers." + std::to_string(s)] = block_floor(bf16_bytes * numbers, c.depths[s], c.conv_branches);
    if (s + 1 == c.depths.size()) break;
    // Gather and norm are one pass of the map; the product halves it.
    other = sum(other, {bf16_bytes * 3.5 * numbers, bf16_bytes * 6 * numbers});
    side /= 2, width *= 2;
  }
  stages[""] = PartTraffic{{outside_blocks, sum(other, head_floor(side * side * width))}};
  return stages;
}

StageTraffic floor_of(const CSwin& model) {
  const CSwinConfig& c = model.config;
  StageTraffic stages;
  double side = double(model.stem.side()), width = c.embed_dim;
  const double pixels = double(c.img_size) * c.img_size * c.in_chans;
  Traffic other = embedding_floor(pixels, pixels, side * side * width, true);
  for (size_t s = 0; s < c.depths.size(); s++) {
    const double numbers = side * side * width;
    stages["stage" + std::to_string(s + 1)] = block_floor(bf16_bytes * numbers, c.depths[s], c.conv_branches);
    if (s + 1 == c.depths.size()) break;
    // A convolution that halves the map, then a norm of the half.
    other = sum(other, {bf16_bytes * 2.5 * numbers, bf16_bytes * 4.5 * numbers});
    side = double(model.merges[s].side()), width *= 2;
  }
  stages[""] = PartTraffic{{outside_blocks, sum(other, head_floor(side * side * width))}};
  return stages;
}

StageTraffic floor_of(const Vit& model) {
  const VitConfig& c = model.config;
  const double side = double(c.img_size) / c.patch_size, tokens = side * side + (c.mean_pool ? 0 : 1), numbers = tokens * c.embed_dim;
  const double pixels = double(c.img_size) * c.img_size * c.in_chans;
  // Token and positions are added by the product.
  const Traffic embedding = embedding_floor(pixels, pixels, side * side * c.embed_dim, false);
  return {{"blocks", block_floor(bf16_bytes * numbers, c.depth, false)}, {"", {{outside_blocks, sum(embedding, head_floor(numbers))}}}};
}

}  // namespace

std::optional<StageTraffic> floor_of_step(const Model& model) {
  if (const auto* swin = dynamic_cast<const Swin*>(&model)) return floor_of(*swin);
  if (const auto* cswin = dynamic_cast<const CSwin*>(&model)) return floor_of(*cswin);
  if (const auto* vit = dynamic_cast<const Vit*>(&model)) return floor_of(*vit);
  return {};
}

OpCost StepCount::total() const {
  OpCost sum;
  for (const auto& [op, cost] : ops) sum.add(cost);
  return sum;
}

StageTraffic StepCount::stages(const Model& model) const {
  StageTraffic stages;
  for (const auto& [layer, costs] : layers)
    for (const auto& [op, cost] : costs) {
      const std::string stage = stage_of_layer(model, layer);
      Traffic& to = stages[stage][stage.empty() ? outside_blocks : part_of_layer(layer)];
      (op.ends_with(" backward") ? to.backward : to.forward) += double(cost.bytes) / double(images);
    }
  return stages;
}

Recipe recipe_to_count(Recipe recipe) {
  recipe.run.device = "cpu";   // the counts are of the form for a device all the same
  recipe.run.shards = 1;
  recipe.run.micro_batch = recipe.data.batch_size;
  return recipe;
}

StepCount count_step(Training& training) {
  Profile profile;
  training.dry_step(empty_batch(training.recipe, *training.model));
  return {training.recipe.data.batch_size, std::move(profile.table), std::move(profile.layers)};
}
