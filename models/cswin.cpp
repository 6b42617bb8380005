// cswin.cpp: the CSwin backbone, forward and bound side by side.
#include "models/cswin.h"

#include <numeric>

namespace {

int total_blocks(const CSwinConfig& config) { return std::accumulate(config.depths.begin(), config.depths.end(), 0); }

// Stripes of the map's height by `stripe` columns for one half of the heads and the other way round for the other; where a stripe is the map,
// one window with all heads (the released code's last stage).
AttentionPlace stripes(const CSwinConfig& config, int heads, int side, int stripe, bool last) {
  const bool whole = last || stripe >= side;
  AttentionPlace place{.heads = heads, .window_height = side, .window_width = whole ? side : stripe, .qkv_bias = config.qkv_bias,
                       .cross_shaped = !whole, .lepe = true};
  if (config.conv_branches) place.output_factor = 1 / std::sqrt(double(whole ? heads : heads / 2));
  return place;
}

}  // namespace

CSwinBlock::CSwinBlock(const Scope& scope, const CSwinConfig& config, int64_t width, int side, int stage, double drop_rate) : name(scope.path()) {
  const int blocks = total_blocks(config);
  const double start = config.parts.residual_start(blocks, blocks * (config.conv_branches ? 4 : 2));
  const bool last = stage + 1 == int(config.depths.size());
  if (config.conv_branches) convs = ConvBranches(scope, config.parts, width, side, start, drop_rate);
  core = TransformerBlock(scope, scope, config.parts, config.conv_branches ? NormPosition::post : NormPosition::pre,
                          stripes(config, config.num_heads[stage], side, config.stripe_widths[stage], last), width,
                          int64_t(double(width) * config.mlp_ratio), start, drop_rate, !config.conv_branches);
  if (!config.conv_branches) return;
  // The released model has this norm and never applies it: it is kept so that its files fit and its size is what was published.
  (scope / "norm1").buffer("weight", {width}, Init::ones(), true, true);
  (scope / "norm1").buffer("bias", {width}, Init::zeros(), true, true);
}

Tensor CSwinBlock::operator()(const Tensor& x, const Mode& mode) const {
  return core(convs ? (*convs)(x, mode) : x, mode);
}

Bound CSwinBlock::bound(const Domain& in, BoundTrace& trace) const {
  const Bound b = convs ? convs->bound(in, trace) : Bound::identity(in);
  return trace.note(name, "CSwinBlock", then(b, core.bound(b.out, trace)));
}

CSwin::CSwin(const CSwinConfig& config) : config(config) {
  img_size = config.img_size;
  input_patch = 1;
  in_chans = config.in_chans;
  num_classes = config.num_classes;
  const size_t count = config.depths.size();
  if (count == 0 || config.num_heads.size() != count || config.stripe_widths.size() != count)
    fail(Exit::config, "model.depths, model.num_heads and model.stripe_widths have ", count, ", ", config.num_heads.size(), " and ",
         config.stripe_widths.size(), " entries: give one of each a stage");
  const int total = total_blocks(config);
  const Scope root(store, config.parts.rules(total * (config.conv_branches ? 4 : 2)));
  const bool overlap = !config.conv_branches;
  int64_t width = config.embed_dim;
  stem = OverlapConv(root / "stage1_conv_embed" / 0, root / "stage1_conv_embed" / 2, in_chans, width, img_size, overlap ? 7 : 4, 4,
                     overlap ? 2 : 0, config.parts.norm);
  int64_t side = stem.side();
  int index = 0;
  for (size_t s = 0; s < count; s++) {
    const int heads = config.num_heads[s], stripe = config.stripe_widths[s];
    if (heads < 2 || width % heads != 0 || heads % 2 != 0)
      fail(Exit::config, "stage ", s + 1, " has ", width, " channels, which ", heads, " heads in two halves do not divide: change model.num_heads");
    if (stripe < side && side % stripe != 0)
      fail(Exit::config, "the ", side, "x", side, " tokens of stage ", s + 1, " cannot be cut into stripes of ", stripe, ": change model.stripe_widths");
    std::vector<CSwinBlock> blocks;
    for (int i = 0; i < config.depths[s]; i++, index++) {
      const double drop = total > 1 ? config.drop_path_rate * index / (total - 1) : 0;
      blocks.emplace_back(root / ("stage" + std::to_string(s + 1)) / i, config, width, int(side), int(s), drop);
    }
    levels.push_back(std::move(blocks));
    if (s + 1 == count) break;
    const Scope merge = root / ("merge" + std::to_string(s + 1));
    merges.emplace_back(merge / "conv", merge / "norm", width, 2 * width, side, overlap ? 3 : 2, 2, overlap ? 1 : 0, config.parts.norm);
    side = merges.back().side();
    if (side < 1) fail(Exit::config, "nothing is left of the map behind stage ", s + 1, ": change model.img_size or model.depths");
    width *= 2;
  }
  norm = Norm(root / "norm", width, overlap ? config.parts.norm : NormPart{NormKind::none});
  head = Linear(root / "head", width, num_classes, true, root.init().classifier());
  std::vector<Attention*> all;
  for (auto& blocks : levels)
    for (CSwinBlock& block : blocks) all.push_back(&block.core.attn);
  number_heads(all);
  add_stages();
}

void CSwin::add_stages() {
  const auto convolve = [this](const std::string& name, const OverlapConv& conv) {
    stages.push_back({name,
                      [&conv](const Tensor& x, const Mode& mode) { return conv(x.view({x.dim(0), conv.map_side, conv.map_side, conv.in}), mode); },
                      [&conv](const Domain& in, BoundTrace& trace) { return conv.bound(in, trace); }});
  };
  convolve("stage1_conv_embed", stem);
  for (size_t l = 0; l < levels.size(); l++) {
    for (const CSwinBlock& block : levels[l]) stages.push_back(stage_of(block.name, block, true));
    if (l < merges.size()) convolve("merge" + std::to_string(l + 1), merges[l]);
  }
  stages.push_back(mean_stage(norm));
  stages.push_back(stage_of(head));
}

std::vector<const Attention*> CSwin::attentions() const {
  std::vector<const Attention*> all;
  for (const auto& blocks : levels)
    for (const CSwinBlock& block : blocks) all.push_back(&block.core.attn);
  return all;
}

std::vector<const ResidualBranch*> CSwin::branches() const {
  std::vector<const ResidualBranch*> all;
  for (const auto& blocks : levels)
    for (const CSwinBlock& block : blocks) {
      if (block.convs) all.insert(all.end(), {&block.convs->branch1, &block.convs->branch2});
      all.insert(all.end(), {&block.core.branch1, &block.core.branch2});
    }
  return all;
}

// The head reads the last norm through a mean.
std::vector<NormFold> CSwin::norm_folds() const {
  std::vector<NormFold> all{stem.norm_fold()};
  for (const auto& blocks : levels)
    for (const CSwinBlock& block : blocks) block.core.add_norm_folds(all);
  for (const OverlapConv& merge : merges) all.push_back(merge.norm_fold());
  all.push_back({&norm, {&head.weight}});
  return all;
}
