// split.cpp: opening the data that a recipe names.
#include "train/split.h"

#include <algorithm>

AugmentConfig augment_config(const Recipe& recipe) {
  const AugmentRecipe& a = recipe.augment;
  AugmentConfig c;
  c.image_size = recipe.model.img_size;
  c.channels = recipe.model.in_chans;
  if (recipe.data.interpolation == "random") c.interpolation.reset();
  else c.interpolation = recipe.data.interpolation == "bilinear" ? Interpolation::bilinear : Interpolation::bicubic;
  c.scaled_decode = recipe.data.scaled_decode;
  c.random_resized_crop = a.random_resized_crop;
  c.scale_min = a.scale[0], c.scale_max = a.scale[1];
  c.ratio_min = a.ratio[0], c.ratio_max = a.ratio[1];
  c.crop_padding = a.crop_padding;
  c.hflip = a.hflip;
  c.auto_augment = parse_auto_augment(a.auto_augment);
  c.color_jitter = a.color_jitter, c.hue = a.hue;
  c.repeats = a.repeats;
  c.erasing = a.erasing, c.erasing_count = a.erasing_count;
  c.crop_pct = a.crop_pct;
  c.mixup_alpha = a.mixup, c.cutmix_alpha = a.cutmix;
  c.mix_prob = a.mix_prob, c.switch_prob = a.mix_switch_prob;
  c.label_smoothing = a.label_smoothing;
  for (size_t i = 0; i < 3; i++) {
    c.mean[i] = float(a.mean[std::min(i, a.mean.size() - 1)]);
    c.std[i] = float(a.std[std::min(i, a.std.size() - 1)]);
  }
  return c;
}

namespace {

Split open_text(const Recipe& recipe, bool training, int rank, int ranks) {
  const ModelRecipe& m = recipe.model;
  Split split;
  split.text = std::make_unique<Text>(Text::open(recipe.data.path, training, m.context));
  const size_t characters = split.text->vocabulary.size();
  if (int64_t(characters) > m.vocab_size)
    fail(Exit::config, recipe.data.path, " has ", characters, " different characters and the model ", m.vocab_size, ": set model.vocab_size=", characters);
  split.source = std::make_unique<TextSource>(*split.text, m.context, recipe.data.batch_size / ranks, training, uint64_t(recipe.run.seed), rank, ranks);
  return split;
}

}  // namespace

Split open_split(const Recipe& recipe, bool training, int rank, int ranks) {
  if (recipe.data.path.empty())
    fail(Exit::config, "data.path is empty: say where the data are, for instance --set data.path=datasets/imagenet");
  if (recipe.model.family == "gpt") return open_text(recipe, training, rank, ranks);
  Split split;
  split.images = open_dataset(recipe.data.path, training ? recipe.data.train : recipe.data.val);
  if (int64_t(split.images->classes().size()) > recipe.model.num_classes)
    fail(Exit::config, recipe.data.path, " has ", split.images->classes().size(), " classes and the model ", recipe.model.num_classes,
         ": set model.num_classes=", split.images->classes().size());
  split.source = std::make_unique<Loader>(*split.images, augment_config(recipe),
                                          LoaderConfig{.batch_size = recipe.data.batch_size / ranks, .training = training, .seed = uint64_t(recipe.run.seed),
                                                       .threads = recipe.data.workers, .max_damaged = recipe.data.max_damaged, .rank = rank, .ranks = ranks});
  return split;
}

int64_t Split::samples() const { return images ? images->size() : static_cast<const TextSource&>(*source).sequences(); }
std::vector<std::string> Split::classes() const { return images ? images->classes() : text->vocabulary; }
