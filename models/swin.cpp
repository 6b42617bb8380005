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
  const Tensor y = core(convs ? (*convs)(x, mode) : x, mode);
  mode.note(name, y);
  return y;
}

Bound SwinBlock::bound(const Domain& in, BoundTrace& trace) const {
  Bound b = Bound::tokenwise(1, BoundKind::certified, in.width, in);
  if (convs) b = convs->bound(in, trace);
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
    Stage stage;
    for (int i = 0; i < config.depths[s]; i++, block_index++) {
      const double drop = total > 1 ? config.drop_path_rate * block_index / (total - 1) : 0;
      stage.blocks.emplace_back(scope / "blocks" / i, config, width, side, heads, config.shift_windows && i % 2 == 1, drop);
    }
    if (s + 1 < config.depths.size()) {
      if (side % 2 != 0) fail(Exit::config, "stage ", s, " has a ", side, " x ", side, " map, which cannot be halved: change model.img_size or model.depths");
      stage.downsample = std::make_unique<PatchMerging>(scope / "downsample", width, config.parts.norm, config.merge_bias);
      width *= 2;
      side /= 2;
    }
    stages.push_back(std::move(stage));
  }
  norm = Norm(root / "norm", width, config.parts.norm);
  head = Linear(root / "head", width, num_classes, true, root.init().classifier());
  std::vector<Attention*> all;
  for (Stage& stage : stages)
    for (SwinBlock& block : stage.blocks) all.push_back(&block.core.attn);
  number_heads(all);
}

Tensor Swin::forward(const Tensor& patches, const Mode& mode) const {
  const int64_t batch = patches.dim(0), side = img_size / input_patch;
  Tensor x = patch_embed(patches, mode).view({batch, side, side, config.embed_dim});   // [B, H, W, C]
  mode.note("patch_embed", x);
  for (const Stage& stage : stages) {
    for (const SwinBlock& block : stage.blocks)
      x = mode.checkpoint_activations ? checkpoint([&](const Tensor& in) { return block(in, mode); }, x) : block(x, mode);
    if (!stage.downsample) continue;
    x = (*stage.downsample)(x, mode);
    mode.note(stage.downsample->name, x);
  }
  x = norm(x.view({batch, x.dim(1) * x.dim(2), x.dim(3)}), mode);
  const Tensor pooled = mean_tokens(x);
  const Tensor logits = head(pooled);
  mode.note("head", logits);
  return logits;
}

Bound Swin::bound(double patch_radius, BoundTrace& trace) const {
  const int64_t side = img_size / input_patch;
  Bound b = patch_embed.bound({side * side, int64_t(in_chans) * input_patch * input_patch, patch_radius}, trace);
  for (const Stage& stage : stages) {
    for (const SwinBlock& block : stage.blocks) b = then(b, block.bound(b.out, trace));
    if (stage.downsample) b = then(b, stage.downsample->bound(b.out, trace));
  }
  b = then(b, norm.bound(b.out, trace));
  b = then(b, mean_tokens_bound(b.out, trace));
  return then(b, head.bound(b.out, trace));
}

std::vector<const Attention*> Swin::attentions() const {
  std::vector<const Attention*> all;
  for (const Stage& stage : stages)
    for (const SwinBlock& block : stage.blocks) all.push_back(&block.core.attn);
  return all;
}

std::vector<const ResidualBranch*> Swin::branches() const {
  std::vector<const ResidualBranch*> all;
  for (const Stage& stage : stages)
    for (const SwinBlock& block : stage.blocks) {
      if (block.convs) all.insert(all.end(), {&block.convs->branch1, &block.convs->branch2});
      all.insert(all.end(), {&block.core.branch1, &block.core.branch2});
    }
  return all;
}

// The head reads the last norm through a mean.
std::vector<NormFold> Swin::norm_folds() const {
  std::vector<NormFold> all{patch_embed.norm_fold()};
  for (const Stage& stage : stages) {
    for (const SwinBlock& block : stage.blocks) block.core.add_norm_folds(all);
    if (stage.downsample) all.push_back(stage.downsample->norm_fold());
  }
  all.push_back({&norm, {&head.weight}});
  return all;
}
