// certify: radii that are exact where the truth is known, hold against the attack everywhere, and count pixels before normalisation.
#include "train/certify.h"

#include <doctest/doctest.h>

#include "tests/layers/matrices.h"
#include "train/recipe.h"

namespace {

Training classifier(const std::vector<std::string>& more) {
  std::vector<std::string> set{"model.family=mlp", "model.img_size=4", "model.in_chans=2", "model.num_classes=3", "model.embed_dim=9", "model.depths=[1]",
                               "model.drop_path_rate=0", "parts.norm=none", "augment.mean=[0.4, 0.6]", "augment.std=[0.5, 0.2]", "run.dtype=f64",
                               "run.threads=1", "parts.init=xavier"};
  set.insert(set.end(), more.begin(), more.end());
  return Training(parse_recipe("", "certify", set), false);
}

// Pixels in the middle of [0, 1], so that the box does not get into an attack's way. [B, 1, 32]
Certifier::Images drawn(int64_t count) {
  std::vector<double> rows;
  for (int64_t b = 0; b < count; b++)
    for (int i = 0; i < 32; i++) {
      const int c = i / 16;
      const double pixel = 0.5 + 0.08 * normal_number("pixels", b * 32 + i);
      rows.push_back((pixel - (c ? 0.6 : 0.4)) / (c ? 0.2 : 0.5));
    }
  return {Tensor::from(Shape{count, 1, 32}, rows, DType::f64), std::vector<int64_t>(size_t(count), 0)};
}

}  // namespace

// z_y - z_j is linear in the pixels, with gradient (w_y - w_j) / std: where all std are the same the certified radius is the distance to the border.
TEST_CASE("certify: of a linear classifier the radius is the distance to the nearest other class, in pixels") {
  Training training = classifier({"augment.std=[0.25, 0.25]"});
  const Certifier certifier(training);
  CHECK(certifier.lipschitz() == doctest::Approx(4).epsilon(1e-7));
  Certifier::Images images = drawn(40);
  const Certifier::Verdict verdict = certifier.judge(images);
  images.labels = verdict.predicted;
  for (int64_t b = 0; b < 40; b++) {
    const double radius = verdict.radius[size_t(b)];
    REQUIRE(radius > 0);
    if (radius > 0.8) continue;   // the box would be near
    const Certifier::Images one{images.rows.slice(b, 1), {verdict.predicted[size_t(b)]}};
    CHECK(!certifier.broken(one, radius * 0.999, 60, 1)[0]);
    CHECK(certifier.broken(one, radius * 1.05, 60, 1)[0]);
  }
}

TEST_CASE("certify: channels of different contrast count by the smallest") {
  Training training = classifier({});
  const Certifier certifier(training);
  CHECK(certifier.lipschitz() == doctest::Approx(1 / 0.2).epsilon(1e-7));
}

TEST_CASE("certify: no attack breaks what is certified, and it breaks much of what is not") {
  int64_t certified = 0, broken_beyond = 0;
  for (const std::string family : {"mlp", "vit", "swin"}) {
    CAPTURE(family);
    std::vector<std::string> set{"parts.init=spectral", "parts.activation=gelu_scaled"};
    if (family == "mlp") set.push_back("model.depths=[3]");
    if (family != "mlp") {
      for (const char* key : {"model.patch_size=2", "model.embed_dim=8", "parts.norm=ball", "parts.attention=dot_mup", "parts.residual=convex",
                              "parts.alpha=0.3"})
        set.push_back(key);
      set.push_back("model.family=" + family);
      set.insert(set.end(), family == "vit" ? std::initializer_list<std::string>{"model.depths=[2]", "model.num_heads=[2]", "model.pool=mean"}
                                            : std::initializer_list<std::string>{"model.depths=[1, 1]", "model.num_heads=[1, 2]", "model.window_size=2"});
    }
    Training training = classifier(set);
    const Certifier certifier(training);
    REQUIRE(certifier.bound().network.kind == BoundKind::certified);
    Certifier::Images images = drawn(12);
    if (family != "mlp") images.rows = images.rows.view({12, 4, 8});
    const Certifier::Verdict verdict = certifier.judge(images);
    images.labels = verdict.predicted;
    for (const double radius : {0.003, 0.01, 0.03, 0.1, 0.3}) {
      const std::vector<char> broken = certifier.broken(images, radius, 20, 3);
      for (size_t b = 0; b < 12; b++) {
        if (verdict.radius[b] > radius) CHECK(!broken[b]);
        certified += verdict.radius[b] > radius;
        broken_beyond += broken[b];
      }
    }
  }
  CHECK(certified > 20);
  CHECK(broken_beyond > 5);
}

TEST_CASE("certify: without a bound there is no certificate, and a text is refused") {
  Training training = classifier({"model.family=vit", "model.patch_size=2", "model.embed_dim=8", "model.num_heads=[2]", "parts.attention=cosine"});
  const Certifier certifier(training);
  CHECK(!certifier.bound().network.bounded());
  Certifier::Images images = drawn(3);
  images.rows = images.rows.view({3, 4, 8});
  for (const double radius : certifier.judge(images).radius) CHECK(radius == 0);
  Training text = classifier({"model.family=gpt", "model.vocab_size=5", "model.context=4", "model.embed_dim=8", "model.num_heads=[2]"});
  CHECK_THROWS_AS(Certifier{text}, Error);
}
