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
  const int64_t width = config.embed_dim, side = img_size / input_patch, tokens = side * side + (config.mean_pool ? 0 : 1);
  if (!config.mean_pool) cls_token = root.parameter("cls_token", {1, 1, width}, ParameterKind::embedding, {Init::normal, 0.02});
  pos_embed = root.parameter("pos_embed", {1, tokens, width}, ParameterKind::embedding, {Init::normal, 0.02});
  patch_embed = PatchEmbed(root / "patch_embed", in_chans, width, input_patch, {NormKind::none});
  const AttentionPlace place{.heads = config.num_heads, .window_height = 1, .window_width = int(tokens), .qkv_bias = config.qkv_bias};
  add_blocks(root, config, config.norm_position, place, config.logit_scale);
  stages.push_back({"patch_embed", [this](const Tensor& x, const Mode& mode) { return embed(x, mode); },
                    [this](const Domain& in, BoundTrace& trace) { return embed_bound(in, trace); }});
  const bool mean = config.mean_pool;
  add_stages([mean](const Tensor& x) { return mean ? mean_tokens(x) : select_token(x, 0); },
             [mean](const Domain& in, BoundTrace& trace) { return mean ? mean_tokens_bound(in, trace) : select_token_bound(in); });
}

// A further token and positions are constants: they move no two inputs apart, but make tokens longer.
Tensor Vit::embed(const Tensor& patches, const Mode& mode) const {
  const int64_t batch = patches.dim(0), width = config.embed_dim, tokens = pos_embed.info().shape[1];
  const Tensor patch_tokens = patch_embed(patches, mode), embedded = cls_token ? prepend_token(patch_tokens, cls_token().view({width})) : patch_tokens;
  return add_bias(embedded.view({batch, tokens * width}), pos_embed().view({tokens * width})).view({batch, 1, tokens, width});
}
Bound Vit::embed_bound(const Domain& in, BoundTrace& trace) const {
  Bound b = patch_embed.bound(in, trace);
  if (cls_token) b.out.tokens++, b.out.radius = std::max(b.out.radius, Real(trace.norms.row_length(cls_token)));
  b.out.radius += trace.norms.row_length(pos_embed);
  return b;
}

std::vector<NormFold> Vit::norm_folds() const {
  std::vector<NormFold> all;
  for (const TransformerBlock& block : blocks) block.add_norm_folds(all);
  all.push_back({&norm, {&head.weight}});
  return all;
}
