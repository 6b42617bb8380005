// swin.cpp: the Swin and LipsFormer-Swin backbone, forward and bound side by side.
#include "models/swin.h"

#include <numeric>

SwinBlock::SwinBlock(const Scope& scope, const SwinConfig& config, int64_t width, int64_t side, int heads, bool shifted, double drop_rate)
    : name(scope.path()) {
  const int blocks = std::accumulate(config.depths.begin(), config.depths.end(), 0);
  const double start = config.parts.residual_start(blocks, blocks * (config.conv_branches ? 4 : 2));
  // A window that covers the map is the map, and then there is nothing to shift.
  const int window = int(std::min<int64_t>(config.window_size, side));
  const AttentionPlace place{.heads = heads, .window_height = window, .window_width = window,
                             .shift = shifted && window < side ? window / 2 : 0, .qkv_bias = config.qkv_bias, .position_bias = true};
  if (config.conv_branches) convs = ConvBranches(scope, config.parts, width, side, start, drop_rate);
  core = TransformerBlock(scope, scope / "attn", config.parts, config.norm_position, place, width, int64_t(double(width) * config.mlp_ratio), start,
                          drop_rate);
}

Tensor SwinBlock::operator()(const Tensor& x, const Mode& mode) const {
  return core(convs ? (*convs)(x, mode) : x, mode);
}

Bound SwinBlock::bound(const Domain& in, BoundTrace& trace) const {
  const Bound b = convs ? convs->bound(in, trace) : Bound::identity(in);
  return trace.note(name, "SwinBlock", then(b, core.bound(b.out, trace)));
}

Swin::Swin(const SwinConfig& config) : config(config) {
  img_size = config.img_size;
  input_patch = config.patch_size;
  in_chans = config.in_chans;
  num_classes = config.num_classes;
  if (config.depths.empty() || config.depths.size() != config.num_heads.size())
    fail(Exit::config, "model.depths has ", config.depths.size(), " entries and model.num_heads ", config.num_heads.size(), ": give one of each a stage");
  if (img_size % input_patch != 0) fail(Exit::config, "model.img_size ", img_size, " is not a multiple of model.patch_size ", input_patch);

  const int total = std::accumulate(config.depths.begin(), config.depths.end(), 0);
  const Scope root(store, config.parts.rules(total * (config.conv_branches ? 4 : 2)));
  int64_t width = config.embed_dim, side = img_size / input_patch;
  int block_index = 0;
  patch_embed = PatchEmbed(root / "patch_embed", in_chans, width, input_patch, config.parts.norm);
  for (size_t s = 0; s < config.depths.size(); s++) {
    const Scope scope = root / "layers" / int(s);
    const int heads = config.num_heads[s], window = int(std::min<int64_t>(config.window_size, side));
    if (heads < 1 || width % heads != 0)
      fail(Exit::config, "stage ", s, " has ", width, " channels, which ", heads, " heads do not divide: change model.embed_dim or model.num_heads");
    if (side % window != 0)
      fail(Exit::config, "stage ", s, " has a ", side, " x ", side, " map, which windows of ", window,
           " do not tile: change model.img_size or model.window_size");
    Level level;
    for (int i = 0; i < config.depths[s]; i++, block_index++) {
      const double drop = total > 1 ? config.drop_path_rate * block_index / (total - 1) : 0;
      level.blocks.emplace_back(scope / "blocks" / i, config, width, side, heads, config.shift_windows && i % 2 == 1, drop);
    }
    if (s + 1 < config.depths.size()) {
      if (side % 2 != 0) fail(Exit::config, "stage ", s, " has a ", side, " x ", side, " map, which cannot be halved: change model.img_size or model.depths");
      level.downsample = std::make_unique<PatchMerging>(scope / "downsample", width, config.parts.norm, config.merge_bias);
      width *= 2;
      side /= 2;
    }
    levels.push_back(std::move(level));
  }
  norm = Norm(root / "norm", width, config.parts.norm);
  head = Linear(root / "head", width, num_classes, true, root.init().classifier(), config.logit_scale);
  std::vector<Attention*> all;
  for (Level& level : levels)
    for (SwinBlock& block : level.blocks) all.push_back(&block.core.attn);
  number_heads(all);
  add_stages();
}

void Swin::add_stages() {
  stages.push_back({"patch_embed",
                    [this](const Tensor& patches, const Mode& mode) {
                      const int64_t side = img_size / input_patch;
                      return patch_embed(patches, mode).view({patches.dim(0), side, side, config.embed_dim});   // [B, H, W, C]
                    },
                    [this](const Domain& in, BoundTrace& trace) { return patch_embed.bound(in, trace); }});
  for (const Level& level : levels) {
    for (const SwinBlock& block : level.blocks) stages.push_back(stage_of(block.name, block, true));
    if (level.downsample) stages.push_back(stage_of(level.downsample->name, *level.downsample));
  }
  stages.push_back(mean_stage(norm));
  stages.push_back(stage_of(head));
}

std::vector<const Attention*> Swin::attentions() const {
  std::vector<const Attention*> all;
  for (const Level& level : levels)
    for (const SwinBlock& block : level.blocks) all.push_back(&block.core.attn);
  return all;
}

std::vector<const ResidualBranch*> Swin::branches() const {
  std::vector<const ResidualBranch*> all;
  for (const Level& level : levels)
    for (const SwinBlock& block : level.blocks) {
      if (block.convs) all.insert(all.end(), {&block.convs->branch1, &block.convs->branch2});
      all.insert(all.end(), {&block.core.branch1, &block.core.branch2});
    }
  return all;
}

// The head reads the last norm through a mean.
std::vector<NormFold> Swin::norm_folds() const {
  std::vector<NormFold> all{patch_embed.norm_fold()};
  for (const Level& level : levels) {
    for (const SwinBlock& block : level.blocks) block.core.add_norm_folds(all);
    if (level.downsample) all.push_back(level.downsample->norm_fold());
  }
  all.push_back({&norm, {&head.weight}});
  return all;
}
