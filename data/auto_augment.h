// auto_augment.h: the random policies of timm: RandAugment, AutoAugment and 3-Augment. A policy draws operations, whoever renders carries them out.
#pragma once
#include <array>
#include <optional>
#include <string>
#include <vector>

#include "data/image_op.h"
#include "engine/random.h"

// An operation whose strength is a level, in timm's words. sign: 1 or -1, for those that go both ways.
struct LevelledOp {
  const char* name;
  ImageOp::Kind kind;
  double (*amount)(double level, double sign);
};
// All of them, by name.
const std::vector<LevelledOp>& levelled_ops();

struct AutoAugment {
  enum Kind { none, rand, three, searched } kind = none;

  // rand: `layers` operations, each carried out with `probability`, at a level drawn from N(magnitude, magnitude_std)
  // and clamped to [0, magnitude_max]; an infinite magnitude_std means uniform in [0, magnitude].
  struct Choice {
    const LevelledOp* op;
    double weight;
  };
  std::vector<Choice> choices;
  bool weighted = false;   // drawn by weight and without replacement, as timm does it; or evenly, with replacement
  int layers = 2;
  double probability = 0.5, magnitude = 10, magnitude_std = 0, magnitude_max = 10;

  // searched: one of these pairs, evenly drawn; each of its operations with its own chance, at a level drawn from N(its own, magnitude_std) and
  // clamped to [0, magnitude_max].
  struct Step {
    const LevelledOp* op;
    double probability, level;
  };
  std::vector<std::array<Step, 2>> pairs;
};

// "none", "3a", "original" or "v0" (AutoAugment's) with -mstdX behind it or not, or "rand" with any of -mN -nN -pX -mstdX -mmaxX -inc1 -t3a -t3aw
// -tweights, for instance "rand-m9-mstd0.5-inc1". Refuses anything else with Exit::config.
AutoAugment parse_auto_augment(const std::string& text);

// Appends what one image gets. Without an interpolation each operation that moves pixels draws its own.
void draw_ops(const AutoAugment&, std::optional<Interpolation>, RandomSequence& draw, std::vector<ImageOp>& ops);

// ColorJitter of torchvision, in random order: brightness, contrast and colour by factors from [1 - strength, 1 + strength], and the hue turned by
// [-hue, hue] of its circle. What is 0 is left out.
void draw_color_jitter(double strength, double hue, RandomSequence& draw, std::vector<ImageOp>& ops);

// Where the recipe leaves it open.
inline Interpolation draw_interpolation(RandomSequence& draw) {
  return draw.chance(0.5) ? Interpolation::bicubic : Interpolation::bilinear;
}
