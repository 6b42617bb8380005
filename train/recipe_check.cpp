// recipe_check.cpp: combinations of keys that cannot be run, each with the sentence that says so.
#include "data/auto_augment.h"
#include "engine/check.h"
#include "train/recipe.h"

namespace {

template <class... Why>
void refuse_if(bool bad, const Why&... why) {
  if (bad) fail(Exit::config, why...);
}

// Stage by stage, as the model will be built: grids are halved between stages, widths doubled.
void check_swin(const ModelRecipe& model) {
  const size_t stages = model.depths.size();
  refuse_if(model.num_heads.size() != stages, "model.depths has ", stages, " stages, model.num_heads has ",
            model.num_heads.size(), ": both need one entry a stage");
  refuse_if(stages > 8, "model.depths has ", stages, " stages, 8 are the most");
  refuse_if(model.img_size % model.patch_size != 0, "model.img_size ", model.img_size,
            " is not a multiple of model.patch_size ", model.patch_size);
  int grid = model.img_size / model.patch_size;
  int64_t width = model.embed_dim;
  for (size_t stage = 0; stage < stages; stage++) {
    const int heads = model.num_heads[stage], window = model.window_size;
    refuse_if(width % heads != 0, "stage ", stage + 1, " is ", width, " wide, which its ", heads,
              " heads do not divide");
    refuse_if(grid > window && grid % window != 0, "the ", grid, "x", grid, " tokens of stage ", stage + 1,
              " cannot be cut into windows of model.window_size ", window);
    if (stage + 1 == stages) break;
    refuse_if(grid % 2 != 0, "the ", grid, "x", grid, " tokens of stage ", stage + 1,
              " cannot be halved: choose a model.img_size that is a multiple of ", model.patch_size << (stages - 1));
    grid /= 2;
    width *= 2;
  }
}

// One entry of depths and num_heads; the sizes themselves are checked where the model is built.
void check_single(const ModelRecipe& model) {
  refuse_if(model.depths.size() != 1, "model.depths has ", model.depths.size(), " entries, a ", model.family, " takes one");
  refuse_if(model.family != "mlp" && model.num_heads.size() != 1, "model.num_heads has ", model.num_heads.size(), " entries, a ", model.family, " takes one");
  refuse_if(model.conv_branches, "model.conv_branches is for swin and cswin");
}

void check_family(const Recipe& recipe) {
  const ModelRecipe& model = recipe.model;
  if (model.family == "swin") return check_swin(model);
  if (model.family != "cswin") check_single(model);
  refuse_if(model.merge_bias, "model.merge_bias is for swin");
  refuse_if(model.family == "gpt" && (model.vocab_size < 1 || model.context < 1), "a gpt needs model.vocab_size and model.context");
  refuse_if(model.family == "cswin" && model.patch_size != 4, "model.patch_size is 4 in a cswin, given ", model.patch_size);
  refuse_if(model.family == "t2t_vit" && model.patch_size != 16, "model.patch_size is 16 in a t2t_vit, given ", model.patch_size);
  refuse_if(model.norm_position == "post" && model.family != "vit" && model.family != "gpt" && model.family != "swin",
            "model.norm_position \"post\" is for swin, vit and gpt");
}

void check_parts(const Recipe& recipe) {
  const PartsRecipe& parts = recipe.parts;
  const ModelRecipe& model = recipe.model;
  const bool over_batch = parts.norm == "batch" || parts.norm == "moving_average_batch" || parts.norm == "power" || parts.norm == "unified";
  refuse_if(parts.norm == "center" && model.embed_dim < 2, "parts.norm \"center\" needs a model.embed_dim of at least 2");
  refuse_if(parts.norm == "center" && !model.bias, "parts.norm \"center\" has a bias: model.bias = false leaves none");
  refuse_if(over_batch && !model.bias, "parts.norm \"", parts.norm, "\" has a bias: model.bias = false leaves none");
  refuse_if(over_batch && recipe.run.checkpoint_activations,
            "run.checkpoint_activations runs layers twice, which parts.norm \"", parts.norm, "\" would take for two steps: choose one of them");
  refuse_if(over_batch && recipe.ema.decay > 0, "ema.decay averages weights but not the statistics of parts.norm \"", parts.norm, "\": choose one of them");
  refuse_if(over_batch && recipe.run.micro_batch > 0, "run.micro_batch would cut the statistics of parts.norm \"", parts.norm, "\": leave it at 0");
  refuse_if(over_batch && model.family == "gpt", "parts.norm \"", parts.norm, "\" mixes what tokens see of later ones: a gpt cannot have it");
  refuse_if(parts.residual == "plain" && parts.alpha != 0, "parts.alpha has no effect while parts.residual is \"plain\": choose \"weighted\"");
  refuse_if(parts.residual == "convex" && parts.alpha >= 1, "parts.alpha of a convex residual is a share below 1, given ", parts.alpha);
  const bool after = parts.residual == "deepnorm" || parts.residual == "admin";
  refuse_if(after && model.norm_position != "post", "parts.residual \"", parts.residual, "\" needs norms behind the sum: set model.norm_position = \"post\"");
  refuse_if(parts.init == "deepnorm" && parts.qkv != "separate",
            "parts.init \"deepnorm\" scales values but not queries and keys: set parts.qkv = \"separate\"");
  refuse_if(parts.init == "fixup" && (parts.norm != "none" || parts.residual != "rezero"),
            "parts.init \"fixup\" stands in place of norms: set parts.norm = \"none\" and parts.residual = \"rezero\"");
  refuse_if(parts.weight != "plain" && (parts.init == "fixup" || parts.init == "orthogonal"),
            "parts.init \"", parts.init, "\" starts matrices at zero, which parts.weight \"", parts.weight, "\" cannot divide by their norm");
  refuse_if(parts.attention == "l2" && parts.qk_norm != "none", "parts.attention \"l2\" ties queries to keys: parts.qk_norm cannot stand between them");
  refuse_if(parts.attention == "l2" && model.family == "cswin", "parts.attention \"l2\" has no values of its own, which a cswin's LePE needs");
  refuse_if(recipe.constraint.method != "none" && parts.weight != "plain",
            "constraint.method holds the stored weights, which parts.weight \"", parts.weight, "\" multiplies: choose one of them");
}

void check_augmentation(const Recipe& recipe) {
  const AugmentRecipe& augment = recipe.augment;
  const size_t channels = static_cast<size_t>(recipe.model.in_chans);
  refuse_if(augment.mean.size() != channels, "augment.mean has ", augment.mean.size(), " entries, model.in_chans is ",
            channels);
  refuse_if(augment.std.size() != channels, "augment.std has ", augment.std.size(), " entries, model.in_chans is ",
            channels);
  refuse_if(augment.scale[0] > augment.scale[1], "augment.scale runs backwards: from ", augment.scale[0], " to ",
            augment.scale[1]);
  refuse_if(augment.ratio[0] > augment.ratio[1], "augment.ratio runs backwards: from ", augment.ratio[0], " to ",
            augment.ratio[1]);
  refuse_if(augment.random_resized_crop && augment.crop_padding > 0,
            "augment.crop_padding has no effect while augment.random_resized_crop is true: set one of them");
  const AutoAugment policy = parse_auto_augment(augment.auto_augment);
  refuse_if(channels != 3 && policy.kind != AutoAugment::none, "augment.auto_augment \"", augment.auto_augment,
            "\" is for colour images, model.in_chans is ", channels);
  const bool jitters = augment.color_jitter > 0 || augment.hue > 0;
  const char* jitter = augment.color_jitter > 0 ? "augment.color_jitter" : "augment.hue";
  refuse_if(channels != 3 && jitters, jitter, " is for colour images, model.in_chans is ", channels);
  const bool three = augment.auto_augment.find("3a") != std::string::npos;
  refuse_if(policy.kind != AutoAugment::none && !three && jitters, jitter, " is left out beside \"", augment.auto_augment, "\" in timm: set one of them");
}

}  // namespace

void validate(const Recipe& recipe) {
  check_family(recipe);
  check_augmentation(recipe);
  check_parts(recipe);

  const ScheduleRecipe& schedule = recipe.schedule;
  refuse_if(schedule.warmup_epochs >= schedule.epochs, "schedule.warmup_epochs ", schedule.warmup_epochs,
            " leaves nothing of schedule.epochs ", schedule.epochs);
  refuse_if(schedule.min_lr > recipe.optimizer.lr, "schedule.min_lr ", schedule.min_lr, " is above optimizer.lr ",
            recipe.optimizer.lr);
  refuse_if(schedule.warmup_epochs > 0 && schedule.warmup_lr > recipe.optimizer.lr, "schedule.warmup_lr ",
            schedule.warmup_lr, " is above optimizer.lr ", recipe.optimizer.lr);
  refuse_if(recipe.run.shards > recipe.data.batch_size, "run.shards ", recipe.run.shards,
            " is more than data.batch_size ", recipe.data.batch_size, ": each part of a batch needs an image");
}
