// recipe_check.cpp: combinations of keys that cannot be run, each with the sentence that says so.
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
}

}  // namespace

void validate(const Recipe& recipe) {
  check_swin(recipe.model);
  check_augmentation(recipe);

  const PartsRecipe& parts = recipe.parts;
  refuse_if(parts.norm == "center" && recipe.model.embed_dim < 2,
            "parts.norm \"center\" needs a model.embed_dim of at least 2");
  refuse_if(parts.residual == "plain" && parts.alpha != 0,
            "parts.alpha has no effect while parts.residual is \"plain\": choose \"weighted\"");

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
