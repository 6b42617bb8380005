// starts: what is set before the first step from something else than a draw: Admin's omegas from a forward, gammas from loaded weights.
#include <cmath>
#include <cstring>
#include <doctest/doctest.h>
#include <filesystem>
#include <unistd.h>

#include "models/vit.h"
#include "train/fuse.h"
#include "train/weights.h"

namespace {

Recipe tiny_vit(std::vector<std::string> set) {
  std::vector<std::string> all{"model.family=vit", "model.img_size=16", "model.in_chans=1", "model.num_classes=5", "model.embed_dim=8", "model.depths=[2]",
                               "model.num_heads=[2]", "augment.mean=[0.5]", "augment.std=[0.25]", "data.batch_size=4", "run.dtype=f64", "run.threads=1",
                               "parts.init=xavier"};
  all.insert(all.end(), set.begin(), set.end());
  return parse_recipe("", "test", all);
}

double variance(const Tensor& x) {
  const std::vector<double> v = x.values();
  double mean = 0, squares = 0;
  for (const double a : v) mean += a / double(v.size());
  for (const double a : v) squares += (a - mean) * (a - mean) / double(v.size());
  return squares;
}

Input noise(const Recipe& recipe) {
  const Shape shape{4, 1, 16, 16};
  std::vector<double> images(size_t(shape.size()));
  const RandomStream stream(2, "noise");
  for (size_t i = 0; i < images.size(); i++) images[i] = normal_from(stream.words(0, i, 0)[0], stream.words(0, i, 0)[1]);
  Input input;
  input.images = Tensor::from(shape, images, recipe_dtype(recipe));
  return input;
}

void set(const Tensor& to, const Tensor& from) { std::memcpy(to.raw(), from.raw(), from.bytes()); }

}  // namespace

TEST_CASE("starts: Admin's omegas are the root of 1 and the variances of the branches before") {
  const Recipe recipe = tiny_vit({"parts.residual=admin", "model.norm_position=post", "model.drop_path_rate=0.5", "ema.decay=0.9"});
  Training training(recipe, true);
  const Input input = noise(recipe);
  const Vit& model = dynamic_cast<const Vit&>(*training.model);

  // The forward of the model by hand, all omegas 1.
  const Mode mode;
  std::vector<double> expected;
  double sum = 1;
  const Tensor tokens = prepend_token(model.patch_embed(patchify(input.images, 4), mode), model.cls_token().view({8}));
  Tensor x = add_bias(tokens.view({4, 17 * 8}), model.pos_embed().view({17 * 8})).view({4, 1, 17, 8});
  for (const TransformerBlock& block : model.blocks) {
    const Tensor f = block.attn(x, mode);
    expected.push_back(std::sqrt(sum));
    sum += variance(f);
    x = block.norm1(add(x, f), mode);
    const Tensor g = block.mlp(x);
    expected.push_back(std::sqrt(sum));
    sum += variance(g);
    x = block.norm2(add(x, g), mode);
  }

  training.initialise_admin(input);
  const std::vector<const ResidualBranch*> branches = model.branches();
  REQUIRE(branches.size() == expected.size());
  for (size_t l = 0; l < branches.size(); l++) {
    CAPTURE(l);
    for (const double omega : branches[l]->omega.raw().values()) CHECK(omega == doctest::Approx(expected[l]).epsilon(1e-12));
    for (const double omega : training.model->store.slice_of(training.optimizer->ema, branches[l]->omega.index).values())
      CHECK(omega == doctest::Approx(expected[l]).epsilon(1e-12));
  }
  CHECK(expected[0] == 1);
  CHECK(expected[3] > 1.01);   // or this test would see nothing

  Training plain(tiny_vit({}), true);
  const Tensor before = plain.model->store.values().to(Device{});
  plain.initialise_admin(input);
  CHECK(plain.model->store.values().values() == before.values());
}

TEST_CASE("starts: a plain model's weights mean the same map under sigma_reparam and weight_norm") {
  const std::string file = (std::filesystem::temp_directory_path() / str("lipsgrad-starts-", getpid(), ".safetensors")).string();
  Training plain(tiny_vit({"run.seed=7"}), false);
  write_safetensors(file, weight_entries(plain.model->store, plain.model->store.values()));
  for (const std::vector<std::string>& part : std::vector<std::vector<std::string>>{
           {"parts.weight=sigma_reparam"}, {"parts.weight=sigma_reparam", "parts.gamma_init=one"}, {"parts.weight=weight_norm"}}) {
    CAPTURE(part.front());
    Training training(tiny_vit(part), false);
    const auto load = [&](const std::string& from) {
      training.spectral->adopt(training.workers, load_weights(training.model->store, SafetensorsFile(from), true));
    };
    load(file);
    CHECK(logit_difference(plain, training) < 1e-7);   // sigma stands to 1e-9

    // A file that has gamma and u is taken as it is.
    ParameterStore& store = training.model->store;
    const int gamma = store.find(part.front().ends_with("weight_norm") ? "head.gain" : "head.gamma");
    set(store.raw(gamma), Tensor::full(store.raw(gamma).shape(), 0.25, DType::f64));
    auto entries = weight_entries(store, store.values());
    entries.merge(buffer_entries(store));
    const std::string own = file + ".own";
    write_safetensors(own, entries);
    const std::vector<double> values = store.values().values(), buffers = store.buffer_values().values();
    load(own);
    CHECK(store.values().values() == values);
    CHECK(store.buffer_values().values() == buffers);
    std::filesystem::remove(own);
  }
  std::filesystem::remove(file);
}
