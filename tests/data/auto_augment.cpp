// Policies: timm's operations from their levels on, its strings, and the published distribution.
#include "helpers.h"

#include <cmath>
#include <set>

#include "data/augment.h"

namespace {

RandomSequence sequence(uint64_t sample) { return {RandomStream(5, "augment"), 0, sample}; }

const LevelledOp& op_called(const std::string& name) {
  for (const LevelledOp& op : levelled_ops())
    if (op.name == name) return op;
  FAIL("no ", name);
  return levelled_ops()[0];
}

std::string refusal(const std::string& policy) {
  const Outcome o = outcome([&] { parse_auto_augment(policy); });
  CHECK(o.exit == Exit::config);
  return o.what;
}

}  // namespace

TEST_CASE("auto augment: each of timm's operations at each level equals timm's, byte for byte") {
  std::ifstream file(SOURCE_DIR "/tests/golden/augment_levels.txt");
  std::string name, filter, kind, hash;
  ImageEditor edit;
  std::set<std::string> names;
  int cases = 0;
  double level, sign;
  for (int h, w; file >> name >> level >> sign >> filter >> kind >> h >> w >> hash; cases++) {
    INFO(name, " at ", level, " ", sign, " ", filter);
    const LevelledOp& op = op_called(name);
    Image image = golden_picture(kind, h, w);
    const auto interpolation = filter == "bilinear" ? Interpolation::bilinear : Interpolation::bicubic;
    edit({op.kind, op.amount(level, sign), interpolation}, {124, 116, 104}, image.pixels.data(), h, w);
    CHECK(fnv(image.pixels) == hash);
    names.insert(name);
  }
  CHECK(cases == 768);
  CHECK(names.size() == levelled_ops().size());
}

TEST_CASE("auto augment: the searched policies are timm's, pair by pair, chances, levels and bytes") {
  std::ifstream file(SOURCE_DIR "/tests/golden/augment_policies.txt");
  std::string policy, names[2], hash;
  double chances[2], levels[2];
  ImageEditor edit;
  int cases = 0;
  for (size_t number; file >> policy >> number >> names[0] >> chances[0] >> levels[0] >> names[1] >> chances[1] >> levels[1] >> hash; cases++) {
    INFO(policy, " ", number);
    const AutoAugment searched = parse_auto_augment(policy);
    REQUIRE(searched.pairs.size() == 25);
    Image image = golden_picture("middle", 30, 40);
    for (int i = 0; i < 2; i++) {
      const AutoAugment::Step& step = searched.pairs[number][i];
      CHECK(step.op->name == names[i]);
      CHECK(step.probability == chances[i]);
      CHECK(step.level == levels[i]);
      edit({step.op->kind, step.op->amount(step.level, 1)}, {124, 116, 104}, image.pixels.data(), 30, 40);
    }
    CHECK(fnv(image.pixels) == hash);
  }
  CHECK(cases == 50);
}

TEST_CASE("auto augment: a searched policy draws its pairs evenly, its operations by their chances, its levels around their own") {
  const AutoAugment fixed = parse_auto_augment("original"), spread = parse_auto_augment("original-mstd0.5");
  CHECK(fixed.magnitude_std == 0);
  CHECK(spread.magnitude_std == 0.5);
  std::map<ImageOp::Kind, double> counts, expected;
  for (const auto& pair : fixed.pairs)
    for (const AutoAugment::Step& step : pair) expected[step.op->kind] += step.probability / 25;
  const int draws = 30000;
  int negative = 0, applied = 0, bicubic = 0;
  double mean = 0, square = 0, between = 0;
  std::vector<ImageOp> ops;
  for (int i = 0; i < draws; i++) {
    RandomSequence draw = sequence(i);
    ops.clear();
    draw_ops(fixed, std::nullopt, draw, ops);
    for (const ImageOp& op : ops) {
      counts[op.kind]++;
      applied++;
      bicubic += op.interpolation == Interpolation::bicubic;
      if (op.kind == ImageOp::shear_x) CHECK_UNARY(std::abs(op.amount) == 0.15);   // level 5
      if (op.kind == ImageOp::rotate) negative += op.amount < 0;
    }
    ops.clear();
    draw_ops(spread, Interpolation::bilinear, draw, ops);
    for (const ImageOp& op : ops) {
      CHECK_UNARY(op.interpolation == Interpolation::bilinear);
      if (op.kind != ImageOp::shear_x) continue;
      const double level = std::abs(op.amount) / 0.3 * 10 - 5;
      between++, mean += level, square += level * level;
    }
  }
  CHECK(counts.size() == expected.size());
  for (const auto& [kind, share] : expected) CHECK(std::abs(counts[kind] - share * draws) < 5 * std::sqrt(share * draws));
  CHECK(std::abs(negative / counts[ImageOp::rotate] - 0.5) < 5 * 0.5 / std::sqrt(counts[ImageOp::rotate]));
  CHECK(std::abs(bicubic / double(applied) - 0.5) < 5 * 0.5 / std::sqrt(applied));
  CHECK(std::abs(mean / between) < 5 * 0.5 / std::sqrt(between));
  CHECK(std::abs(std::sqrt(square / between) - 0.5) < 5 * 0.5 / std::sqrt(2 * between));
}

TEST_CASE("auto augment: policy strings are read as timm reads them") {
  CHECK(parse_auto_augment("none").kind == AutoAugment::none);
  CHECK(parse_auto_augment("3a").kind == AutoAugment::three);
  const AutoAugment usual = parse_auto_augment("rand-m9-mstd0.5-inc1");
  CHECK(usual.kind == AutoAugment::rand);
  CHECK(usual.layers == 2);
  CHECK(usual.probability == 0.5);
  CHECK(usual.magnitude == 9);
  CHECK(usual.magnitude_std == 0.5);
  CHECK(usual.magnitude_max == 10);
  CHECK(usual.choices.size() == 15);
  CHECK(std::string(usual.choices[4].op->name) == "PosterizeIncreasing");
  CHECK(std::string(parse_auto_augment("rand").choices[4].op->name) == "Posterize");
  const AutoAugment other = parse_auto_augment("rand-n3-p0.8-m15-mmax20-mstd101-tweights");
  CHECK(other.layers == 3);
  CHECK(other.probability == 0.8);
  CHECK(other.magnitude_max == 20);
  CHECK(std::isinf(other.magnitude_std));
  CHECK(other.weighted);
  CHECK(parse_auto_augment("rand-t3a").choices.size() == 3);
  CHECK(parse_auto_augment("rand-t3aw-n2").choices.size() == 14);
}

TEST_CASE("auto augment: what is no policy is refused, the nearest name given") {
  CHECK(refusal("ran-m9").find("did you mean 'rand'?") != std::string::npos);
  CHECK(refusal("v0r").find("did you mean 'v0'?") != std::string::npos);
  CHECK(refusal("v0-inc1").find("only 'mstd' goes with a searched policy, not 'inc'") != std::string::npos);
  CHECK(refusal("rand-mst0.5").find("did you mean 'mstd'?") != std::string::npos);
  CHECK(refusal("rand-m9-tweight").find("did you mean 'tweights'?") != std::string::npos);
  CHECK(refusal("rand-m9-inc0").find("'inc' is inc1 or left out") != std::string::npos);
  CHECK(refusal("rand-mx").find("there is no 'mx'") != std::string::npos);
  CHECK(refusal("rand-m9x").find("'m' takes a number from 0 to 100, given '9x'") != std::string::npos);
  CHECK(refusal("rand-n1.5").find("'n' takes a whole number") != std::string::npos);
  for (const char* wrong : {"", "rand-", "rand--m9", "rand-m", "rand-p2", "rand-m9-", "3a-m9", "rand-n0", "rand-n15-t3aw", "original-m9",
                            "original-t3a", "v0-mstd", "v0-mstd101", "v0-n2"})
    refusal(wrong);
}

TEST_CASE("auto augment: operations, shares and magnitudes have the published distribution") {
  const AutoAugment policy = parse_auto_augment("rand-m9-mstd0.5-inc1");
  std::map<ImageOp::Kind, int> counts;
  double degrees = 0, negative = 0, bicubic = 0;
  int applied = 0;
  const int draws = 30000;
  std::vector<ImageOp> ops;
  for (int i = 0; i < draws; i++) {
    RandomSequence draw = sequence(i);
    ops.clear();
    draw_ops(policy, std::nullopt, draw, ops);
    for (const ImageOp& op : ops) {
      applied++;
      counts[op.kind]++;
      bicubic += op.interpolation == Interpolation::bicubic;
      if (op.kind != ImageOp::rotate) continue;
      degrees += std::abs(op.amount);
      negative += op.amount < 0;
    }
  }
  CHECK(counts.size() == 15);
  CHECK(std::abs(applied / double(draws) - 1) < 0.015);
  for (const auto& [kind, count] : counts) CHECK(std::abs(count - draws / 15.0) < 5 * std::sqrt(draws / 15.0));
  const double rotations = counts[ImageOp::rotate];
  CHECK(std::abs(degrees / rotations / 3 - 8.996) < 0.06);   // the mean of N(9, 0.5) clamped at 10; five standard errors
  CHECK(std::abs(negative / rotations - 0.5) < 0.06);
  CHECK(std::abs(bicubic / applied - 0.5) < 0.02);
}

TEST_CASE("auto augment: weights without replacement, 3-Augment and the jitter") {
  const AutoAugment weighted = parse_auto_augment("rand-n2-p1-t3aw");
  std::map<ImageOp::Kind, int> first, three;
  std::set<std::vector<int>> orders;
  std::vector<ImageOp> ops;
  const int draws = 17000;
  for (int i = 0; i < draws; i++) {
    RandomSequence draw = sequence(i);
    ops.clear();
    draw_ops(weighted, Interpolation::bilinear, draw, ops);
    REQUIRE(ops.size() == 2);
    CHECK_UNARY(ops[0].kind != ops[1].kind || ops[0].kind == ImageOp::color);   // Desaturate and Color are both blends with gray
    CHECK_UNARY(ops[0].interpolation == Interpolation::bilinear);
    first[ops[0].kind]++;
    ops.clear();
    draw_ops(parse_auto_augment("3a"), Interpolation::bicubic, draw, ops);
    REQUIRE(ops.size() == 1);
    three[ops[0].kind]++;
    if (ops[0].kind == ImageOp::blur) CHECK_UNARY(ops[0].amount >= 0.1 && ops[0].amount < 2);
    ops.clear();
    draw_color_jitter(0.3, 0, draw, ops);
    std::vector<int> order;
    for (const ImageOp& op : ops) {
      order.push_back(op.kind);
      CHECK_UNARY(op.amount >= 0.7 && op.amount < 1.3);
    }
    orders.insert(order);
  }
  const double total = 33;   // of all weights
  CHECK(std::abs(first[ImageOp::solarize] / double(draws) - 6 / total) < 0.015);
  CHECK(std::abs(first[ImageOp::rotate] / double(draws) - 3 / total) < 0.012);
  CHECK(three.size() == 3);
  for (const auto& [kind, count] : three) CHECK(std::abs(count / double(draws) - 1 / 3.0) < 0.02);
  CHECK(orders.size() == 6);
}

TEST_CASE("auto augment: the hue is one of the jitter's four operations, in any of their 24 orders") {
  std::map<std::vector<int>, int> orders;
  std::vector<ImageOp> ops;
  const int draws = 24000;
  double turns = 0, least = 0, most = 0;
  for (int i = 0; i < draws; i++) {
    RandomSequence draw = sequence(i);
    ops.clear();
    draw_color_jitter(0.4, 0.1, draw, ops);
    std::vector<int> order;
    for (const ImageOp& op : ops) {
      order.push_back(op.kind);
      if (op.kind != ImageOp::hue) continue;
      turns += op.amount / draws;
      least = std::min(least, op.amount), most = std::max(most, op.amount);
    }
    orders[order]++;
  }
  CHECK(orders.size() == 24);
  for (const auto& [order, count] : orders) CHECK(std::abs(count - draws / 24.0) < 5 * std::sqrt(draws / 24.0));
  CHECK(std::abs(turns) < 5 * 0.2 / std::sqrt(12.0 * draws));
  CHECK_UNARY(least >= -0.1 && least < -0.099 && most < 0.1 && most > 0.099);
  ops.clear();
  RandomSequence draw = sequence(0);
  draw_color_jitter(0, 0.1, draw, ops);
  CHECK(ops.size() == 1);
  draw_color_jitter(0, 0, draw, ops);
  CHECK(ops.size() == 1);
}

TEST_CASE("auto augment: an image is rendered, then operated on, a pure function of its draws") {
  AugmentConfig plain, config;
  plain.image_size = config.image_size = 32;
  config.auto_augment = parse_auto_augment("rand-m9-mstd0.5-inc1");
  config.color_jitter = 0.4;
  config.hue = 0.2;
  Renderer first(plain), second(config), third(config);
  const Bytes bytes = golden_images()["rgb444.jpg"].bytes;
  ImageEditor edit;
  int changed = 0;
  for (int i = 199; i >= 0; i--) {
    Bytes a(32 * 32 * 3), b(a), c(a);
    first.training(bytes, sequence(i), a.data());
    second.training(bytes, sequence(i), b.data());
    third.training(bytes, sequence(i % 7), c.data());   // another history
    third.training(bytes, sequence(i), c.data());
    CHECK(b == c);
    RandomSequence draw = sequence(i);
    training_view(plain, {19, 23}, draw);
    std::vector<ImageOp> ops;
    draw_ops(config.auto_augment, Interpolation::bicubic, draw, ops);
    draw_color_jitter(0.4, 0.2, draw, ops);
    for (const ImageOp& op : ops) edit(op, {124, 116, 104}, a.data(), 32, 32);
    CHECK(a == b);
    changed += !ops.empty();
  }
  CHECK(changed == 200);
  config.channels = 1;
  CHECK(outcome([&] { validate(config); }).exit == Exit::config);
}
