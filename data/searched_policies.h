// searched_policies.h: what AutoAugment's search found for ImageNet (arXiv:1805.09501), and the policy of the EfficientNet code beside it.
#pragma once
#include <array>
#include <string>
#include <vector>

// One operation of a pair: its chance and its level, as timm names and scales them.
struct SearchedOp {
  const char* name;
  double probability, level;
};
using SearchedPair = std::array<SearchedOp, 2>;

// "original" or "v0": 25 pairs of which each image gets one. Empty for any other name.
std::vector<SearchedPair> searched_policy(const std::string& name);
