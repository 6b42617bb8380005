// auto_augment.cpp: timm's table of operations, its policy strings, and the draws.
#include "data/auto_augment.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <iterator>
#include <limits>

#include "data/searched_policies.h"
#include "engine/check.h"
#include "engine/nearest.h"

namespace {

using Op = ImageOp;

double nothing(double, double) { return 0; }
double degrees(double level, double sign) { return sign * (level / 10 * 30); }
double slope(double level, double sign) { return sign * (level / 10 * 0.3); }
double share(double level, double sign) { return sign * (level / 10 * 0.45); }
double factor(double level, double) { return level / 10 * 1.8 + 0.1; }
double factor_increasing(double level, double sign) { return std::max(0.1, 1 + sign * (level / 10 * 0.9)); }
double bits(double level, double) { return std::clamp(std::trunc(level / 10 * 4), 0.0, 8.0); }
double bits_increasing(double level, double) { return std::clamp(4 - std::trunc(level / 10 * 4), 0.0, 8.0); }
double bits_original(double level, double) { return std::clamp(4 + std::trunc(level / 10 * 4), 0.0, 8.0); }
double threshold(double level, double) { return std::min(256.0, std::trunc(level / 10 * 256)); }
double threshold_increasing(double level, double sign) { return 256 - threshold(level, sign); }
double added(double level, double) { return std::min(128.0, std::trunc(level / 10 * 110)); }
double desaturation(double level, double) { return std::clamp(1 - std::clamp(0.5 + 0.5 * (level / 10), 0.5, 1.0), 0.0, 1.0); }
double radius(double level, double) { return std::clamp(0.1 + (2.0 - 0.1) * (level / 10), 0.1, 2.0); }

// A set of operations: evenly drawn where all weights are zero.
struct Set {
  const char* name;
  std::vector<std::pair<const char*, double>> ops;
};

const std::vector<Set>& sets() {
  static const std::vector<Set> table = {
      {"", {{"AutoContrast", 0}, {"Equalize", 0}, {"Invert", 0}, {"Rotate", 0}, {"Posterize", 0}, {"Solarize", 0}, {"SolarizeAdd", 0},
            {"Color", 0}, {"Contrast", 0}, {"Brightness", 0}, {"Sharpness", 0}, {"ShearX", 0}, {"ShearY", 0}, {"TranslateXRel", 0},
            {"TranslateYRel", 0}}},
      {"inc", {{"AutoContrast", 0}, {"Equalize", 0}, {"Invert", 0}, {"Rotate", 0}, {"PosterizeIncreasing", 0}, {"SolarizeIncreasing", 0},
               {"SolarizeAdd", 0}, {"ColorIncreasing", 0}, {"ContrastIncreasing", 0}, {"BrightnessIncreasing", 0},
               {"SharpnessIncreasing", 0}, {"ShearX", 0}, {"ShearY", 0}, {"TranslateXRel", 0}, {"TranslateYRel", 0}}},
      {"3a", {{"SolarizeIncreasing", 0}, {"Desaturate", 0}, {"GaussianBlur", 0}}},
      {"3aw", {{"SolarizeIncreasing", 6}, {"Desaturate", 6}, {"GaussianBlur", 6}, {"Rotate", 3}, {"ShearX", 2}, {"ShearY", 2},
               {"PosterizeIncreasing", 1}, {"AutoContrast", 1}, {"ColorIncreasing", 1}, {"SharpnessIncreasing", 1},
               {"ContrastIncreasing", 1}, {"BrightnessIncreasing", 1}, {"Equalize", 1}, {"Invert", 1}}},
      {"weights", {{"Rotate", 3}, {"ShearX", 2}, {"ShearY", 2}, {"TranslateXRel", 1}, {"TranslateYRel", 1}, {"ColorIncreasing", .25},
                   {"SharpnessIncreasing", .25}, {"AutoContrast", .25}, {"SolarizeIncreasing", .05}, {"SolarizeAdd", .05},
                   {"ContrastIncreasing", .05}, {"BrightnessIncreasing", .05}, {"Equalize", .05}, {"PosterizeIncreasing", .05},
                   {"Invert", .05}}}};
  return table;
}

const LevelledOp& op_called(const std::string& name) {
  const auto& all = levelled_ops();
  const auto op = std::find_if(all.begin(), all.end(), [&](const LevelledOp& o) { return o.name == name; });
  check(op != all.end(), "[auto augment] no operation is called ", name);
  return *op;
}

void choose_set(AutoAugment& policy, const std::string& name) {
  const auto set = std::find_if(sets().begin(), sets().end(), [&](const Set& s) { return s.name == name; });
  policy.choices.clear();
  for (const auto& [op_name, weight] : set->ops) {
    policy.choices.push_back({&op_called(op_name), weight});
    policy.weighted = weight > 0;
  }
}

// One section of a policy's string, for instance "mstd0.5".
struct Section {
  const std::string& policy;
  std::string key, value;

  template <class... A> [[noreturn]] void refuse(const A&... why) const {
    fail(Exit::config, "augment.auto_augment \"", policy, "\": ", why...);
  }
  double number(double least, double most) const {
    double v = 0;
    const char* end = value.data() + value.size();
    const auto [stop, error] = std::from_chars(value.data(), end, v);
    if (error != std::errc() || stop != end || !(v >= least && v <= most))
      refuse("'", key, "' takes a number from ", least, " to ", most, ", given '", value, "'");
    return v;
  }
  int whole(int least, int most) const {
    const double v = number(least, most);
    if (v != std::floor(v)) refuse("'", key, "' takes a whole number, given '", value, "'");
    return int(v);
  }
};

void read_section(AutoAugment& policy, const Section& s, std::string& set) {
  if (policy.kind == AutoAugment::searched) {
    if (s.key != "mstd") s.refuse("only 'mstd' goes with a searched policy, not '", s.key, "'");
    policy.magnitude_std = s.number(0, 100);
  } else if (s.key == "m") policy.magnitude = s.number(0, 100);
  else if (s.key == "n") policy.layers = s.whole(1, 15);
  else if (s.key == "p") policy.probability = s.number(0, 1);
  else if (s.key == "mmax") policy.magnitude_max = s.number(1, 100);
  else if (s.key == "mstd") {
    const double std = s.number(0, 1e6);
    policy.magnitude_std = std > 100 ? std::numeric_limits<double>::infinity() : std;
  } else if (s.key == "inc") {
    // Older releases of timm take inc0 for on, newer ones for off.
    if (s.value != "1") s.refuse("'inc' is inc1 or left out, given 'inc", s.value, "'");
    if (set.empty()) set = "inc";
  } else {
    s.refuse("there is no '", s.key, "': ", suggestion(s.key, {"m", "n", "p", "mstd", "mmax", "inc", "t3a", "t3aw", "tweights"}));
  }
}

const AutoAugment::Choice& draw_choice(const AutoAugment& policy, RandomSequence& draw) {
  const auto& all = policy.choices;
  if (!policy.weighted) return all[draw.below(uint32_t(all.size()))];
  double total = 0;
  for (const auto& choice : all) total += choice.weight;
  double left = draw.uniform() * total;
  size_t i = 0;
  while (i + 1 < all.size() && left >= all[i].weight) left -= all[i++].weight;
  return all[i];
}

double draw_level(const AutoAugment& policy, double level, RandomSequence& draw) {
  if (std::isinf(policy.magnitude_std)) level = draw.uniform(0, level);
  else if (policy.magnitude_std > 0) level += policy.magnitude_std * draw.normal();
  return std::clamp(level, 0.0, policy.magnitude_max);
}

}  // namespace

const std::vector<LevelledOp>& levelled_ops() {
  static const std::vector<LevelledOp> table = {
      {"AutoContrast", Op::autocontrast, nothing}, {"Equalize", Op::equalize, nothing}, {"Invert", Op::invert, nothing},
      {"Rotate", Op::rotate, degrees},
      {"Posterize", Op::posterize, bits}, {"PosterizeIncreasing", Op::posterize, bits_increasing}, {"PosterizeOriginal", Op::posterize, bits_original},
      {"Solarize", Op::solarize, threshold}, {"SolarizeIncreasing", Op::solarize, threshold_increasing},
      {"SolarizeAdd", Op::solarize_add, added},
      {"Color", Op::color, factor}, {"ColorIncreasing", Op::color, factor_increasing},
      {"Contrast", Op::contrast, factor}, {"ContrastIncreasing", Op::contrast, factor_increasing},
      {"Brightness", Op::brightness, factor}, {"BrightnessIncreasing", Op::brightness, factor_increasing},
      {"Sharpness", Op::sharpness, factor}, {"SharpnessIncreasing", Op::sharpness, factor_increasing},
      {"ShearX", Op::shear_x, slope}, {"ShearY", Op::shear_y, slope},
      {"TranslateXRel", Op::translate_x, share}, {"TranslateYRel", Op::translate_y, share},
      {"Desaturate", Op::color, desaturation}, {"GaussianBlur", Op::blur, radius}};
  return table;
}

AutoAugment parse_auto_augment(const std::string& text) {
  AutoAugment policy;
  if (text == "none") return policy;
  if (text == "3a") {
    policy.kind = AutoAugment::three;
    return policy;
  }
  size_t end = std::min(text.find('-'), text.size());
  const std::string name = text.substr(0, end);
  const std::vector<SearchedPair> pairs = searched_policy(name);
  if (name != "rand" && pairs.empty()) {
    fail(Exit::config, "augment.auto_augment \"", text, "\": there is no policy '", name, "': ",
         suggestion(name, {"none", "rand", "3a", "original", "v0"}));
  }
  policy.kind = pairs.empty() ? AutoAugment::rand : AutoAugment::searched;
  const auto step = [](const SearchedOp& op) { return AutoAugment::Step{&op_called(op.name), op.probability, op.level}; };
  for (const auto& [first, second] : pairs) policy.pairs.push_back({step(first), step(second)});
  std::string set;
  while (end < text.size()) {
    const size_t begin = end + 1;
    end = std::min(text.find('-', begin), text.size());
    const std::string section = text.substr(begin, end - begin);
    const bool names_set = policy.kind == AutoAugment::rand && (section == "t3a" || section == "t3aw" || section == "tweights");
    if (names_set) {
      set = section.substr(1);
      continue;
    }
    const auto digit = std::find_if(section.begin(), section.end(), [](unsigned char c) { return std::isdigit(c) || c == '.'; });
    read_section(policy, {text, {section.begin(), digit}, {digit, section.end()}}, set);
  }
  if (policy.kind == AutoAugment::rand) choose_set(policy, set);
  if (policy.weighted && policy.layers > int(policy.choices.size()))
    fail(Exit::config, "augment.auto_augment \"", text, "\": ", policy.layers, " different operations of ", policy.choices.size());
  return policy;
}

void draw_ops(const AutoAugment& policy, std::optional<Interpolation> interpolation, RandomSequence& draw, std::vector<ImageOp>& ops) {
  if (policy.kind == AutoAugment::none) return;
  if (policy.kind == AutoAugment::three) {
    const uint32_t which = draw.below(3);
    if (which == 0) ops.push_back({Op::color, 0});
    else if (which == 1) ops.push_back({Op::solarize, 128});
    else ops.push_back({Op::blur, draw.uniform(0.1, 2.0)});
    return;
  }
  const auto add = [&](const LevelledOp& op, double magnitude) {
    const double level = draw_level(policy, magnitude, draw), sign = draw.chance(0.5) ? -1 : 1;
    const Interpolation kind = interpolation ? *interpolation : draw_interpolation(draw);
    ops.push_back({op.kind, op.amount(level, sign), kind});
  };
  if (policy.kind == AutoAugment::searched) {
    for (const AutoAugment::Step& step : policy.pairs[draw.below(uint32_t(policy.pairs.size()))])
      if (draw.chance(step.probability)) add(*step.op, step.level);
    return;
  }
  constexpr int most_layers = 15;
  const LevelledOp* drawn[most_layers];
  for (int i = 0; i < policy.layers; i++) {
    do drawn[i] = draw_choice(policy, draw).op;
    while (policy.weighted && std::find(drawn, drawn + i, drawn[i]) != drawn + i);
  }
  for (int i = 0; i < policy.layers; i++)
    if (draw.chance(policy.probability)) add(*drawn[i], policy.magnitude);
}

void draw_color_jitter(double strength, double hue, RandomSequence& draw, std::vector<ImageOp>& ops) {
  Op::Kind order[4];
  uint32_t count = 0;
  if (strength > 0)
    for (const Op::Kind kind : {Op::brightness, Op::contrast, Op::color}) order[count++] = kind;
  if (hue > 0) order[count++] = Op::hue;
  for (uint32_t i = count; i-- > 1;) std::swap(order[i], order[draw.below(i + 1)]);
  for (uint32_t i = 0; i < count; i++) {
    const double amount = order[i] == Op::hue ? draw.uniform(-hue, hue) : draw.uniform(std::max(0.0, 1 - strength), 1 + strength);
    ops.push_back({order[i], amount});
  }
}
