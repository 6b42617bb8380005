// swin.cpp: the Swin and LipsFormer-Swin backbone, forward and bound side by side.
#include "models/swin.h"

#include <numeric>

SwinBlock::SwinBlock(const Scope& scope, const SwinConfig& config, int64_t width, int64_t side, int heads, bool shifted, double drop_rate)
    : name(scope.path()), position(config.norm_position), has_convs(config.conv_branches) {
  const int total = std::accumulate(config.depths.begin(), config.depths.end(), 0);
  const double alpha = config.alpha > 0 ? config.alpha : 1.0 / total;
  const auto branch = [&](const Scope& s) { return ResidualBranch(s, width, config.residual, alpha, drop_rate); };
  // A window that covers the map is the map, and then there is nothing to shift.
  const int window = int(std::min<int64_t>(config.window_size, side));
  const int shift = shifted && window < side ? window / 2 : 0;

  if (has_convs) {
    conv1 = DepthwiseConv(scope / "dwconv_layers" / 0, width, 7, side, side);
    conv2 = DepthwiseConv(scope / "dwconv_layers" / 1, width, 7, side, side);
    nin = Linear::pointwise(scope / "nin", width);
    branch1 = branch(scope / "scale_layers" / 0);
    branch2 = branch(scope / "scale_layers" / 1);
  }
  norm1 = Norm(scope / "norm1", width, config.norm, config.norm_eps);
  attn = Attention(scope / "attn", width, heads, window, shift, config.attention);
  branch3 = branch(scope / "alpha1");
  norm2 = Norm(scope / "norm2", width, config.norm, config.norm_eps);
  mlp = Mlp(scope / "mlp", width, int64_t(double(width) * config.mlp_ratio));
  branch4 = branch(scope / "alpha2");
}

Tensor SwinBlock::operator()(const Tensor& input, const Mode& mode) const {
  Tensor x = input;
  if (has_convs) {
    x = branch1(x, nin.with_gelu(conv1.with_gelu(x)), mode);
    x = branch2(x, conv2.with_gelu(x), mode);
  }
  if (position == SwinConfig::post) {
    x = norm1.after_residual(x, attn(x, mode), branch3.alpha(), branch3.drop(mode), false).normalised;
    x = norm2.after_residual(x, mlp(x), branch4.alpha(), branch4.drop(mode), false).normalised;
  } else {
    const Sum s = norm2.after_residual(x, attn(norm1(x), mode), branch3.alpha(), branch3.drop(mode), true);
    x = branch4(s.sum, mlp(s.normalised), mode);
  }
  mode.note(name, x);
  return x;
}

Bound SwinBlock::bound(const Domain& in, BoundTrace& trace) const {
  Bound b = Bound::of(1, BoundKind::certified, in);
  const auto follow = [&](const Bound& next) { b = then(b, next); };
  if (has_convs) {
    const Bound conv = conv1.with_gelu_bound(b.out, trace);
    follow(branch1.bound(b.out, then(conv, nin.with_gelu_bound(conv.out, trace)), trace));
    follow(branch2.bound(b.out, conv2.with_gelu_bound(b.out, trace), trace));
  }
  if (position == SwinConfig::post) {
    follow(branch3.bound(b.out, attn.bound(b.out, trace), trace));
    follow(norm1.bound(b.out, trace));
    follow(branch4.bound(b.out, mlp.bound(b.out, trace), trace));
    follow(norm2.bound(b.out, trace));
  } else {
    const Bound n1 = norm1.bound(b.out, trace);
    follow(branch3.bound(b.out, then(n1, attn.bound(n1.out, trace)), trace));
    const Bound n2 = norm2.bound(b.out, trace);
    follow(branch4.bound(b.out, then(n2, mlp.bound(n2.out, trace)), trace));
  }
  return trace.note(name, "SwinBlock", b);
}

Swin::Swin(const SwinConfig& config) : config(config) {
  img_size = config.img_size;
  patch_size = config.patch_size;
  in_chans = config.in_chans;
  num_classes = config.num_classes;
  if (config.depths.empty() || config.depths.size() != config.num_heads.size())
    fail(Exit::config, "model.depths has ", config.depths.size(), " entries and model.num_heads ", config.num_heads.size(), ": give one of each a stage");
  if (img_size % patch_size != 0) fail(Exit::config, "model.img_size ", img_size, " is not a multiple of model.patch_size ", patch_size);

  const Scope root(store, config.init);
  int64_t width = config.embed_dim, side = img_size / patch_size;
  const int total = std::accumulate(config.depths.begin(), config.depths.end(), 0);
  int block_index = 0, first_head = 0;
  patch_embed = PatchEmbed(root / "patch_embed", in_chans, width, patch_size, config.norm, config.norm_eps);
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
      stage.blocks.back().attn.first_head = first_head;
      first_head += heads;
    }
    if (s + 1 < config.depths.size()) {
      if (side % 2 != 0) fail(Exit::config, "stage ", s, " has a ", side, " x ", side, " map, which cannot be halved: change model.img_size or model.depths");
      stage.downsample = std::make_unique<PatchMerging>(scope / "downsample", width, config.norm, config.norm_eps);
      width *= 2;
      side /= 2;
    }
    stages.push_back(std::move(stage));
  }
  norm = Norm(root / "norm", width, config.norm, config.norm_eps);
  head = Linear(root / "head", width, num_classes);
}

Tensor Swin::forward(const Tensor& patches, const Mode& mode) const {
  const int64_t batch = patches.dim(0), side = img_size / patch_size;
  Tensor x = patch_embed(patches).view({batch, side, side, config.embed_dim});   // [B, H, W, C]
  mode.note("patch_embed", x);
  for (const Stage& stage : stages) {
    for (const SwinBlock& block : stage.blocks)
      x = mode.checkpoint_activations ? checkpoint([&](const Tensor& in) { return block(in, mode); }, x) : block(x, mode);
    if (!stage.downsample) continue;
    x = (*stage.downsample)(x);
    mode.note(stage.downsample->name, x);
  }
  x = norm(x.view({batch, x.dim(1) * x.dim(2), x.dim(3)}));
  const Tensor pooled = mean_tokens(x);
  const Tensor logits = head(pooled);
  mode.note("head", logits);
  return logits;
}

Bound Swin::bound(double patch_radius, BoundTrace& trace) const {
  const int64_t side = img_size / patch_size;
  Bound b = patch_embed.bound({side * side, int64_t(in_chans) * patch_size * patch_size, patch_radius}, trace);
  for (const Stage& stage : stages) {
    for (const SwinBlock& block : stage.blocks) b = then(b, block.bound(b.out, trace));
    if (stage.downsample) b = then(b, stage.downsample->bound(b.out, trace));
  }
  b = then(b, norm.bound(b.out, trace));
  // The mean of T tokens has constant 1 / sqrt T, and is no longer than the longest token.
  const Bound mean = Bound::of(1 / std::sqrt(double(b.out.tokens)), BoundKind::certified, {1, b.out.width, b.out.radius});
  b = then(b, trace.note("mean_tokens", "Mean", mean));
  return then(b, head.bound(b.out, trace));
}

std::vector<AttentionInfo> Swin::attentions() const {
  std::vector<AttentionInfo> all;
  for (const Stage& stage : stages)
    for (const SwinBlock& block : stage.blocks)
      all.push_back({block.attn.name, block.attn.config.heads, block.attn.first_head, block.attn.tokens()});
  return all;
}

std::vector<Parameter> Swin::scales() const {
  std::vector<Parameter> all;
  for (const Stage& stage : stages)
    for (const SwinBlock& block : stage.blocks)
      for (const ResidualBranch* branch : {&block.branch1, &block.branch2, &block.branch3, &block.branch4})
        if (branch->alpha) all.push_back(branch->alpha);
  return all;
}
