// fuse: a fused model gives the logits of the model that it was made of, whatever its backbone and parts; and what cannot be folded says why.
#include "train/fuse.h"

#include <cstring>
#include <doctest/doctest.h>
#include <filesystem>
#include <fstream>
#include <unistd.h>

#include "train/commands.h"
#include "train/weights.h"

namespace {

using Keys = std::vector<std::string>;

Keys joined(Keys a, const Keys& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

const Keys swin{"model.img_size=16", "model.patch_size=2", "model.depths=[1, 2]", "model.num_heads=[1, 2]", "model.window_size=4"};
const Keys cswin{"model.family=cswin", "model.img_size=32", "model.depths=[1, 1, 1, 1]", "model.num_heads=[2, 2, 4, 4]",
                 "model.stripe_widths=[1, 2, 2, 1]"};
const Keys vit{"model.family=vit", "model.img_size=16", "model.depths=[2]", "model.num_heads=[2]"};
const Keys t2t{"model.family=t2t_vit", "model.img_size=32", "model.patch_size=16", "model.depths=[1]", "model.num_heads=[2]",
               "model.token_dim=4", "model.qkv_bias=false"};

Recipe small(const Keys& family, const Keys& set) {
  const Keys common{"model.in_chans=1", "model.num_classes=5", "model.embed_dim=8", "augment.mean=[0.5]", "augment.std=[0.25]", "run.dtype=f64",
                    "run.threads=1", "run.seed=3"};
  return parse_recipe("", "test", joined(joined(common, family), set));
}

// Every number that the model has learned or remembers is moved, so that no bias is 0, no norm's weight 1 and no statistic what it starts as.
// Statistics and counters are positive and stay so.
void stir(Training& training) {
  ParameterStore& store = training.model->store;
  const RandomStream stream(1, "stir");
  double* w = store.values().data<double>();
  for (int64_t i = 0; i < store.flat_size(); i++) {
    const auto words = stream.words(0, uint64_t(i), 0);
    w[i] += 0.3 * normal_from(words[0], words[1]);
  }
  for (size_t b = 0; b < store.buffers().size(); b++) {
    const std::string& name = store.buffers()[b].name;
    if (!name.ends_with("running_var") && !name.ends_with("running_mean")) continue;
    double* values = store.buffer(int(b)).data<double>();
    for (int64_t i = 0; i < store.buffers()[b].shape.size(); i++) values[i] += 0.5 * uniform_from(stream.words(1, uint64_t(b), uint32_t(i))[0]);
  }
}

double fusion_error(const Recipe& recipe) {
  Training training(recipe, false);
  stir(training);
  const std::unique_ptr<Training> fused = fuse(training);
  CHECK(fused->recipe == parse_recipe(to_toml(fused->recipe), "fused"));   // and it is a recipe that can be run
  CHECK(!fused->model->store.batch_statistics);
  CHECK(fused->model->store.spectral_weights.empty());
  CHECK(all_finite(fused->model->store.values()));
  return logit_difference(training, *fused);
}

struct Folder {
  std::filesystem::path path = std::filesystem::temp_directory_path() / str("lipsgrad-fuse-", getpid());
  Folder() { std::filesystem::create_directories(path); }
  ~Folder() { std::filesystem::remove_all(path); }
  std::string operator/(const char* name) const { return (path / name).string(); }
};

}  // namespace

TEST_CASE("fuse: norms over the batch fold into every backbone without changing its logits") {
  for (const char* norm : {"batch", "moving_average_batch", "power", "unified"})
    for (const Keys& family : {swin, cswin, vit, t2t}) {
      const Recipe recipe = small(family, {std::string("parts.norm=") + norm});
      CAPTURE(norm);
      CAPTURE(recipe.model.family);
      CHECK(fusion_error(recipe) < 1e-9);
    }
}

TEST_CASE("fuse: weight parts fold, alone and behind norms") {
  for (const char* weight : {"sigma_reparam", "spectral_norm", "weight_norm"}) {
    CAPTURE(weight);
    const std::string part = std::string("parts.weight=") + weight;
    CHECK(fusion_error(small(swin, {part})) < 1e-9);
    CHECK(fusion_error(small(t2t, {part, "parts.norm=unified"})) < 1e-9);
    CHECK(fusion_error(small(vit, {part, "parts.attention=l2", "parts.norm=none"})) < 1e-9);
    CHECK(fusion_error(small(vit, {part, "parts.norm=batch", "parts.qkv=separate", "parts.activation=gelu_scaled", "parts.attention=dot_mup",
                                   "parts.residual=convex", "parts.qk_norm=rms"})) < 1e-9);
    const Keys lipsformer{part, "parts.norm=center", "parts.residual=weighted", "model.conv_branches=true"};
    CHECK(fusion_error(small(swin, joined(lipsformer, {"model.norm_position=post"}))) < 1e-9);
    CHECK(fusion_error(small(cswin, lipsformer)) < 1e-9);
  }
}

TEST_CASE("fuse: the biases that folding makes are in the recipe") {
  Training training(small(swin, {"parts.norm=unified", "model.qkv_bias=false"}), false);
  stir(training);
  const std::unique_ptr<Training> fused = fuse(training);
  CHECK(training.model->store.find("layers.0.downsample.reduction.bias") < 0);
  CHECK(fused->model->store.find("layers.0.downsample.reduction.bias") >= 0);
  CHECK(fused->model->store.find("layers.0.blocks.0.attn.qkv.bias") >= 0);
  CHECK(fused->model->store.find("layers.0.blocks.0.norm1.weight") < 0);
  CHECK(logit_difference(training, *fused) < 1e-9);
}

TEST_CASE("fuse: what cannot be folded is refused with its reason") {
  const auto refuses = [](const Recipe& recipe, const char* reason) {
    Training training(recipe, false);
    std::string said;
    try {
      fuse(training);
    } catch (const Error& error) {
      said = error.what();
    }
    CHECK_MESSAGE(said.find(reason) != std::string::npos, said);
  };
  refuses(small(vit, {"parts.norm=unified", "model.norm_position=post"}), "the next sum reads them too");
  refuses(small(cswin, {"parts.norm=unified", "model.conv_branches=true"}), "the next sum reads them too");
  refuses(small(vit, {"parts.norm=unified", "parts.attention=l2"}), "makes its values of the query matrix too");
  refuses(small(vit, {}), "there is nothing to fold");
}

TEST_CASE("fuse: convert writes weights and a recipe that load, and overwrites nothing") {
  const Folder folder;
  const Recipe recipe = small(swin, {"parts.norm=unified", "parts.weight=sigma_reparam"});
  Training training(recipe, false);
  stir(training);
  ParameterStore& store = training.model->store;
  auto entries = weight_entries(store, store.values());
  entries.merge(buffer_entries(store));
  write_safetensors(folder / "model.safetensors", entries);
  std::ofstream(folder / "model.toml") << to_toml(recipe);
  ConvertOptions options{.input = folder / "model.toml", .output = folder / "fused.safetensors", .fuse = true,
                         .weights = folder / "model.safetensors"};
  CHECK(run_convert(options) == 0);

  Training fused(load_recipe(folder / "fused.toml"), false);
  load_weights(fused.model->store, SafetensorsFile(folder / "fused.safetensors"), false);   // every name fits
  CHECK(fused.recipe.parts.norm == "none");
  CHECK(fused.recipe.parts.weight == "plain");
  CHECK(logit_difference(training, fused) < 1e-9);
  CHECK_THROWS_AS(run_convert(options), Error);
  options.output = folder / "model.safetensors";
  CHECK_THROWS_AS(run_convert(options), Error);
}
