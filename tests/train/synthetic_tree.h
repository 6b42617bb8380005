// synthetic_tree.h: the bound of a made-up network as a tree whose constants follow from its leaves, as a real one's do.
#pragma once
#include <cmath>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/random.h"

// A part of it at time t, 0 to 1 and beyond. A leaf's constant is base (1 + drift t), with a little noise on one that drifts; that of a sum is
// 1 + weight(t) times its parts'.
struct SyntheticPart {
  std::string name, kind, join = "leaf";
  double base = 1, drift = 0;
  std::vector<SyntheticPart> parts = {};
  double value = 1;

  double weight(double t) const { return 0.15 + 0.25 * t * base; }
  void move_to(double t, RandomSequence& draw) {
    value = join == "leaf" ? base * (1 + drift * t) * (drift > 0 ? 1 + 0.002 * draw.normal() : 1) : 1;
    for (SyntheticPart& part : parts) part.move_to(t, draw), value *= part.value;
    if (join == "sum") value = 1 + weight(t) * value;
  }
  nlohmann::json json() const {
    nlohmann::json out{{"join", join}};
    if (!name.empty()) out["name"] = name;
    if (!kind.empty()) out["kind"] = kind;
    if (join == "sum") out["skip"] = 1.0, out["weight"] = weight(0);
    if (join == "sum" && parts.size() > 1) {
      nlohmann::json branch{{"join", "product"}};
      for (const SyntheticPart& part : parts) branch["parts"].push_back(part.json());
      out["parts"].push_back(branch);
    } else {
      for (const SyntheticPart& part : parts) out["parts"].push_back(part.json());
    }
    return out;
  }
  // What has a column, in the order in which a bound is composed.
  void collect(std::vector<const SyntheticPart*>& named) const {
    for (const SyntheticPart& part : parts) part.collect(named);
    if (!name.empty()) named.push_back(this);
  }
};

// LipsFormer-Swin-T: 12 blocks, three merges, about 200 layers.
inline SyntheticPart synthetic_swin(bool unbounded) {
  const int depths[] = {2, 2, 6, 2};
  const double inf = std::numeric_limits<double>::infinity();
  const SyntheticPart gelu{"", "GELU", "leaf", 1.128905};
  SyntheticPart network{"network", "Network", "product"};
  network.parts.push_back({"patch_embed", "PatchEmbed", "product", 1, 0, {{"", "", "leaf", 1.2, 0.6}, {"patch_embed.norm", "CenterNorm", "leaf", 1.01}}});
  int index = 0;
  for (int stage = 0; stage < 4; stage++) {
    const std::string layer = "layers." + std::to_string(stage);
    for (int b = 0; b < depths[stage]; b++, index++) {
      const std::string name = layer + ".blocks." + std::to_string(b);
      const double odd = 0.5 + 0.5 * std::sin(index * 1.7);   // no block is like another
      const auto conv = [&](const char* at, double base) {
        return SyntheticPart{name + at, "DepthwiseConv", "product", 1, 0, {{"", "", "leaf", base, 0.3 * odd}, gelu}};
      };
      SyntheticPart block{name, "SwinBlock", "product"};
      block.parts.push_back({name + ".scale_layers.0", "Residual", "sum", 1 + odd, 0,
                             {conv(".dwconv_layers.0", 1.1), {name + ".nin", "Linear", "leaf", 0.9, 0.2}, gelu}});
      block.parts.push_back({name + ".scale_layers.1", "Residual", "sum", 1, 0, {conv(".dwconv_layers.1", 0.8)}});
      block.parts.push_back({name + ".alpha1", "Residual", "sum", 1.2, 0,
                             {{name + ".attn", unbounded ? "DotProductAttention" : "Attention", "product", 1, 0,
                               {{"", "", "leaf", unbounded ? inf : 1.9, 0.4 * odd}, {name + ".attn.proj", "Linear", "leaf", 1.05, 0.4}}}}});
      block.parts.push_back({name + ".norm1", "CenterNorm", "leaf", 1.01});
      block.parts.push_back({name + ".alpha2", "Residual", "sum", 1.1, 0,
                             {{name + ".mlp", "Mlp", "product", 1, 0,
                               {{name + ".mlp.fc1", "Linear", "leaf", 1.2, 0.3}, gelu, {name + ".mlp.fc2", "Linear", "leaf", 1.1, 0.5 * odd}}}}});
      block.parts.push_back({name + ".norm2", "CenterNorm", "leaf", 1.01});
      network.parts.push_back(block);
    }
    if (stage == 3) break;
    const std::string merge = layer + ".downsample";
    network.parts.push_back({merge, "PatchMerging", "product", 1, 0,
                             {{merge + ".norm", "CenterNorm", "leaf", 1.01}, {merge + ".reduction", "Linear", "leaf", 1.3, 0.2}}});
  }
  network.parts.push_back({"norm", "CenterNorm", "leaf", 1.01});
  network.parts.push_back({"mean_tokens", "Mean", "leaf", 1.0 / 7});
  network.parts.push_back({"head", "Linear", "leaf", 1.4, 0.9});
  return network;
}
