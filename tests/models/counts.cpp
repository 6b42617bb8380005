// Published models have the published number of parameters, to the last digit, and names as PyTorch has them.
#include <doctest/doctest.h>

#include "models/swin.h"

namespace {

SwinConfig swin(int width, std::vector<int> depths) {
  SwinConfig c;
  c.embed_dim = width;
  c.depths = std::move(depths);
  for (int& h : c.num_heads) h = h * width / 96;
  return c;
}

SwinConfig lipsformer(int width, std::vector<int> depths) {
  SwinConfig c = swin(width, std::move(depths));
  c.shift_windows = false;
  c.conv_branches = true;
  c.norm_position = NormPosition::post;
  c.parts.norm.kind = NormKind::center;
  c.parts.residual = ResidualPart::weighted;
  c.parts.attention.similarity = Similarity::cosine;
  return c;
}

}  // namespace

TEST_CASE("swin: parameter counts of the published models") {
  CHECK(Swin(swin(96, {2, 2, 6, 2})).store.count() == 28288354);
  CHECK(Swin(swin(96, {2, 2, 18, 2})).store.count() == 49606258);
  CHECK(Swin(swin(128, {2, 2, 18, 2})).store.count() == 87768224);
  CHECK(Swin(lipsformer(96, {2, 2, 6, 2})).store.count() == 30908578);
  CHECK(Swin(lipsformer(96, {2, 2, 5, 2})).store.count() == 28944310);
  CHECK(Swin(lipsformer(96, {2, 2, 18, 2})).store.count() == 54479794);
  CHECK(Swin(lipsformer(128, {2, 2, 18, 2})).store.count() == 96011168);
}

TEST_CASE("swin: weight decay groups have the published sizes") {
  const auto decayed = [](const SwinConfig& config) {
    const Swin model(config);
    int64_t n = 0;
    for (const ParameterInfo& info : model.store.parameters()) n += info.decays() ? info.size() : 0;
    return n;
  };
  CHECK(decayed(lipsformer(96, {2, 2, 6, 2})) == 30788736);
  CHECK(decayed(lipsformer(96, {2, 2, 18, 2})) == 54243456);
  CHECK(decayed(lipsformer(128, {2, 2, 18, 2})) == 95696384);
  CHECK(decayed(swin(96, {2, 2, 6, 2})) == 28199424);
}

TEST_CASE("swin: drop path grows linearly over the blocks") {
  const Swin model(lipsformer(96, {2, 2, 6, 2}));
  CHECK(model.levels[0].blocks[0].convs->branch1.drop_rate == 0);
  CHECK(model.levels[0].blocks[1].core.branch2.drop_rate == doctest::Approx(0.2 / 11));
  CHECK(model.levels[3].blocks[1].core.branch1.drop_rate == doctest::Approx(0.2));
}

TEST_CASE("swin: sizes that do not fit are refused with what to change") {
  SwinConfig c;
  c.img_size = 200;
  CHECK_THROWS_WITH_AS(Swin{c}, doctest::Contains("window"), Error);
  c = SwinConfig();
  c.num_heads[1] = 5;
  CHECK_THROWS_WITH_AS(Swin{c}, doctest::Contains("heads"), Error);
}
