// vit.cpp: the Vision Transformer, forward and bound side by side.
#include "models/vit.h"

Vit::Vit(const VitConfig& config) : config(config) {
  img_size = config.img_size;
  input_patch = config.patch_size;
  in_chans = config.in_chans;
  num_classes = config.num_classes;
  if (img_size % input_patch != 0) fail(Exit::config, "model.img_size ", img_size, " is not a multiple of model.patch_size ", input_patch);
  if (config.num_heads < 1 || config.embed_dim % config.num_heads != 0)
    fail(Exit::config, "model.embed_dim ", config.embed_dim, " is not a multiple of model.num_heads ", config.num_heads);
  const Scope root(store, config.parts.rules(2 * config.depth));
  const int64_t width = config.embed_dim, side = img_size / input_patch, tokens = side * side + 1;
  cls_token = root.parameter("cls_token", {1, 1, width}, ParameterKind::embedding, {Init::normal, 0.02});
  pos_embed = root.parameter("pos_embed", {1, tokens, width}, ParameterKind::embedding, {Init::normal, 0.02});
  patch_embed = PatchEmbed(root / "patch_embed", in_chans, width, input_patch, {NormKind::none});
  const AttentionPlace place{.heads = config.num_heads, .window_height = 1, .window_width = int(tokens), .qkv_bias = config.qkv_bias};
  add_blocks(root, config, config.norm_position, place, config.logit_scale);
}

Tensor Vit::forward(const Tensor& patches, const Mode& mode) const {
  const int64_t batch = patches.dim(0), width = config.embed_dim, tokens = pos_embed.raw().dim(1);
  const Tensor embedded = prepend_token(patch_embed(patches, mode), cls_token().view({width}));   // [B, N + 1, D]
  Tensor x = add_bias(embedded.view({batch, tokens * width}), pos_embed().view({tokens * width})).view({batch, 1, tokens, width});
  mode.note("patch_embed", x);
  x = run_blocks(x, mode);
  x = norm(x.view({batch, tokens, width}), mode);
  const Tensor logits = head(select_token(x, 0));
  mode.note("head", logits);
  return logits;
}

// A further token and positions are constants: they move no two inputs apart, but make tokens longer.
Bound Vit::bound(double patch_radius, BoundTrace& trace) const {
  const int64_t side = img_size / input_patch, width = config.embed_dim;
  Bound b = patch_embed.bound({side * side, int64_t(in_chans) * input_patch * input_patch, patch_radius}, trace);
  b.out.tokens++;
  b.out.radius = std::max(b.out.radius, trace.norms.row_length(cls_token)) + trace.norms.row_length(pos_embed);
  b = blocks_bound(b, trace);
  // One token of them all: constant 1.
  b = then(b, Bound::tokenwise(1, BoundKind::certified, width, {1, width, b.out.radius}));
  return then(b, head.bound(b.out, trace));
}

std::vector<NormFold> Vit::norm_folds() const {
  std::vector<NormFold> all;
  for (const TransformerBlock& block : blocks) block.add_norm_folds(all);
  all.push_back({&norm, {&head.weight}});
  return all;
}
