// Augmentation: what is drawn has the published distribution, what is rendered is what was drawn.
#include "helpers.h"

#include "data/augment.h"

namespace {

RandomSequence sequence(uint64_t sample, const char* name = "augment") { return {RandomStream(3, name), 0, sample}; }

// A gray PGM, which decodes without loss.
Bytes pgm(const Image& image) {
  const std::string header = str("P5\n", image.width, " ", image.height, "\n255\n");
  Bytes bytes(header.begin(), header.end());
  bytes.insert(bytes.end(), image.pixels.begin(), image.pixels.end());
  return bytes;
}

}  // namespace

TEST_CASE("crop: area, height and lower edge as torchvision's sampler has them") {
  struct Expected {
    Size image;
    double scale, area, bottom, height;
  };
  // 100,000 draws of the reference sampler each.
  const Expected table[] = {{{375, 500}, 0.08, 0.433, 0.860, 0.720}, {{500, 375}, 0.08, 0.432, 0.781, 0.563},
                            {{500, 500}, 0.08, 0.478, 0.835, 0.670}, {{333, 500}, 0.08, 0.389, 0.863, 0.726},
                            {{375, 500}, 0.35, 0.575, 0.923, 0.846}};
  for (const Expected& e : table) {
    AugmentConfig config;
    config.scale_min = e.scale;
    double area = 0, bottom = 0, height = 0;
    int flips = 0;
    const int draws = 20000;
    for (int i = 0; i < draws; i++) {
      RandomSequence draw = sequence(i);
      const View view = training_view(config, e.image, draw);
      const Box& box = view.source;
      CHECK_UNARY(box.top >= 0 && box.left >= 0 && box.height > 0 && box.width > 0);
      CHECK_UNARY(box.top + box.height <= e.image.height && box.left + box.width <= e.image.width);
      area += double(box.height) * box.width / e.image.height / e.image.width / draws;
      bottom += double(box.top + box.height) / e.image.height / draws;
      height += double(box.height) / e.image.height / draws;
      flips += view.flip;
    }
    CHECK(std::abs(area - e.area) < 0.006);
    CHECK(std::abs(bottom - e.bottom) < 0.006);
    CHECK(std::abs(height - e.height) < 0.006);
    CHECK(std::abs(flips / double(draws) - 0.5) < 0.015);
  }
}

TEST_CASE("crop: an image of an extreme shape falls back to the largest allowed centre") {
  AugmentConfig config;
  config.scale_min = 0.9;
  RandomSequence draw = sequence(0);
  const View wide = training_view(config, {30, 3000}, draw), tall = training_view(config, {3001, 30}, draw);
  CHECK(wide.source.height == 30);
  CHECK(wide.source.width == 40);
  CHECK(wide.source.left == 1480);
  CHECK(tall.source.height == 40);
  CHECK(tall.source.top == 1480);
  const View dot = training_view(config, {1, 1}, draw);
  CHECK(dot.source.height == 1);
  CHECK(dot.source.width == 1);
}

TEST_CASE("evaluation: short side, then centre, with torchvision's rounding") {
  AugmentConfig config;
  const View view = evaluation_view(config, {375, 500});
  CHECK(view.resized.height == 256);
  CHECK(view.resized.width == 341);
  CHECK(view.top == 16);
  CHECK(view.left == 58);  // 58.5 goes to the even number
  config.crop_pct = 0.9;
  CHECK(evaluation_view(config, {500, 375}).resized.width == 248);
  config.crop_pct = 1;
  CHECK(evaluation_view(config, {500, 375}).resized.width == 224);
}

TEST_CASE("padded crop: the image moved by at most the padding, zeros around it, perhaps mirrored") {
  const Image image = picture(28, 28, 1);
  AugmentConfig config;
  config.image_size = 28;
  config.channels = 1;
  config.random_resized_crop = false;
  config.crop_padding = 3;
  Renderer renderer(config);
  std::map<int, int> offsets;
  int flips = 0;
  for (int sample = 0; sample < 2000; sample++) {
    RandomSequence draw = sequence(sample);
    const View view = training_view(config, {28, 28}, draw);
    offsets[view.top]++;
    offsets[view.left]++;
    flips += view.flip;
    Bytes out(28 * 28, 77);
    renderer.training(pgm(image), sequence(sample), out.data());
    bool equal = true;
    for (int y = 0; y < 28; y++) {
      for (int x = 0; x < 28; x++) {
        const int from_y = y + view.top, from_x = (view.flip ? 27 - x : x) + view.left;
        const bool inside = from_y >= 0 && from_y < 28 && from_x >= 0 && from_x < 28;
        equal = equal && out[y * 28 + x] == (inside ? image.pixels[from_y * 28 + from_x] : 0);
      }
    }
    CHECK(equal);
  }
  CHECK(offsets.size() == 7);
  CHECK(offsets.begin()->first == -3);
  for (const auto& [offset, count] : offsets) CHECK(std::abs(count - 4000 / 7.0) < 100);
  CHECK(std::abs(flips - 1000) < 100);
}

TEST_CASE("erasing: share, area and shape of the boxes") {
  AugmentConfig config;
  config.erasing = 0.25;
  int erased = 0;
  double area = 0;
  const int draws = 20000;
  for (int i = 0; i < draws; i++) {
    RandomSequence draw = sequence(i);
    const EraseBox box = training_view(config, {300, 400}, draw).erase[0];
    if (box.height == 0) continue;
    erased++;
    area += double(box.height) * box.width / (224 * 224);
    CHECK_UNARY(box.height < 224 && box.width < 224 && box.top >= 0 && box.left >= 0);
    CHECK_UNARY(box.top + box.height <= 224 && box.left + box.width <= 224);
    const double ratio = double(box.height) / box.width;
    CHECK_UNARY(ratio > 0.28 && ratio < 3.6);
  }
  CHECK(std::abs(erased / double(draws) - 0.25) < 0.01);
  CHECK(std::abs(area / erased - (0.02 + 1.0 / 3) / 2) < 0.006);
}

TEST_CASE("erasing: from one to so many boxes, which share the area as timm's do") {
  struct Expected {
    int side, count;
    double covered, deviation;
  };
  // timm's RandomErasing, of 12,000 erased images each: the share of the image that its boxes cover.
  for (const Expected& e : {Expected{224, 1, 0.1756, 0.0895}, {224, 3, 0.1683, 0.0679}, {32, 8, 0.1645, 0.0497}}) {
    AugmentConfig config;
    config.image_size = e.side;
    config.erasing = 0.6;
    config.erasing_count = e.count;
    std::vector<int> counts(9);
    double covered = 0;
    const int draws = 4000;
    int erased = 0;
    for (int i = 0; i < draws; i++) {
      RandomSequence draw = sequence(i);
      const EraseBoxes boxes = training_view(config, {300, 400}, draw).erase;
      std::vector<char> under(size_t(e.side * e.side));
      int count = 0;
      for (const EraseBox& box : boxes) {
        count += box.height > 0;
        for (int y = box.top; y < box.top + box.height; y++) std::fill_n(&under[size_t(y * e.side + box.left)], box.width, 1);
      }
      for (const EraseBox& box : boxes) {   // its share of the area, sides rounded
        const double area = double(box.height) * box.width, slack = 1.5 * (box.height + box.width);
        if (box.height > 0) CHECK_UNARY(area < e.side * e.side / 3.0 / count + slack);
        if (box.height > 0) CHECK_UNARY(area > e.side * e.side * 0.02 / count - slack);
      }
      counts[size_t(count)]++;
      if (count == 0) continue;
      erased++;
      covered += double(std::count(under.begin(), under.end(), 1)) / double(under.size());
    }
    CHECK(std::abs(counts[0] / double(draws) - 0.4) < 5 * std::sqrt(0.24 / draws));
    for (int n = 1; n <= 8; n++) CHECK(std::abs(counts[size_t(n)] - (n <= e.count ? 0.6 * draws / e.count : 0)) < 5 * std::sqrt(0.6 * draws / e.count));
    CHECK(std::abs(covered / erased - e.covered) < 5 * e.deviation * std::sqrt(1.0 / erased + 1.0 / 12000));
  }
}

TEST_CASE("mix: shares of mixup and cutmix, moments of lambda") {
  AugmentConfig config;
  config.mixup_alpha = 0.8;
  config.cutmix_alpha = 1;
  config.mix_prob = 0.9;
  int mixups = 0, cutmixes = 0, low = 0;
  double mean = 0, square = 0;
  const int draws = 20000;
  for (int i = 0; i < draws; i++) {
    RandomSequence draw = sequence(i, "mix");
    const Mix mix = draw_mix(config, draw);
    CHECK_UNARY(mix.lambda >= 0 && mix.lambda <= 1);
    if (mix.kind == Mix::mixup) {
      mixups++;
      mean += mix.lambda;
      square += double(mix.lambda) * mix.lambda;
    }
    if (mix.kind != Mix::cutmix) continue;
    cutmixes++;
    low += mix.lambda < 0.5;
    CHECK_UNARY(mix.top >= 0 && mix.left >= 0 && mix.bottom <= 224 && mix.right <= 224);
    const double box = double(mix.bottom - mix.top) * (mix.right - mix.left);
    CHECK_UNARY(std::abs(mix.lambda - (1 - box / (224.0 * 224))) < 1e-6);
  }
  CHECK(std::abs(mixups / double(draws) - 0.45) < 0.015);
  CHECK(std::abs(cutmixes / double(draws) - 0.45) < 0.015);
  mean /= mixups;
  const double variance = square / mixups - mean * mean;
  CHECK(std::abs(mean - 0.5) < 0.01);
  CHECK(std::abs(variance - 1 / (4 * (2 * 0.8 + 1))) < 0.004);  // of Beta(a, a)
  // Beta(1, 1) would be below 0.5 half of the time; the border's correction raises lambda.
  CHECK(low / double(cutmixes) > 0.1);
  CHECK(low / double(cutmixes) < 0.45);

  RandomSequence draw = sequence(0, "mix");
  CHECK(draw_mix(AugmentConfig{}, draw).kind == Mix::none);
}

TEST_CASE("augmentation: values without a meaning are refused") {
  CHECK(outcome([] { validate(AugmentConfig{}); }).exit == Exit::ok);
  const auto refused = [](auto&& change) {
    AugmentConfig config;
    change(config);
    return outcome([&] { validate(config); }).exit == Exit::config;
  };
  CHECK(refused([](auto& c) { c.image_size = 0; }));
  CHECK(refused([](auto& c) { c.channels = 2; }));
  CHECK(refused([](auto& c) { c.scale_min = 0; }));
  CHECK(refused([](auto& c) { c.scale_min = std::nan(""); }));
  CHECK(refused([](auto& c) { c.ratio_max = 0.1; }));
  CHECK(refused([](auto& c) { c.hflip = 1.5; }));
  CHECK(refused([](auto& c) { c.crop_pct = 0; }));
  CHECK(refused([](auto& c) { c.erasing_count = 0; }));
  CHECK(refused([](auto& c) { c.erasing_count = 9; }));
  CHECK(refused([](auto& c) { c.hue = 0.6; }));
  CHECK(refused([](auto& c) { c.label_smoothing = 1; }));
  CHECK(refused([](auto& c) { c.mixup_alpha = -1; }));
  CHECK(refused([](auto& c) { c.std[1] = 0; }));
}

TEST_CASE("rendering: images of every shape, in one and three channels") {
  for (const int channels : {1, 3}) {
    for (const bool crop : {true, false}) {
      AugmentConfig config;
      config.image_size = 32;
      config.channels = channels;
      config.random_resized_crop = crop;
      config.crop_padding = 4;
      Renderer renderer(config);
      for (const Size size : {Size{1, 1}, Size{1, 300}, Size{2000, 3}, Size{31, 33}, Size{100, 40}}) {
        const Bytes bytes = pgm(picture(size.height, size.width, 1));
        Bytes out(size_t(32) * 32 * channels);
        for (int sample = 0; sample < 20; sample++) renderer.training(bytes, sequence(sample), out.data());
        renderer.evaluation(bytes, out.data());
        CHECK(out.back() > 0);
      }
    }
  }
}
