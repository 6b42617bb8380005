// gpt.cpp: the decoder-only Transformer, forward and bound side by side.
#include "models/gpt.h"

Gpt::Gpt(const GptConfig& config) : config(config) {
  context = config.context;
  num_classes = config.vocab_size;
  if (config.num_heads < 1 || config.embed_dim % config.num_heads != 0)
    fail(Exit::config, "model.embed_dim ", config.embed_dim, " is not a multiple of model.num_heads ", config.num_heads);
  const Parts& parts = config.parts;
  const Scope root(store, parts.rules(2 * config.depth));
  const int64_t width = config.embed_dim;
  const double start = parts.residual_start(config.depth, 2 * config.depth);
  embed = (root / "embed").parameter("weight", {config.vocab_size, width}, ParameterKind::embedding, {Init::unit_rows});
  const AttentionPlace place{.heads = config.num_heads, .window_height = 1, .window_width = context, .qkv_bias = config.qkv_bias, .causal = true,
                             .rotary_base = config.rotary_base, .rotary_still = config.rotary_still};
  for (int i = 0; i < config.depth; i++) {
    const Scope scope = root / "blocks" / i;
    const double drop = config.depth > 1 ? config.drop_path_rate * i / (config.depth - 1) : 0;
    blocks.emplace_back(scope, scope / "attn", parts, config.norm_position, place, width, int64_t(double(width) * config.mlp_ratio), start, drop);
  }
  norm = Norm(root / "norm", width, config.norm_position == NormPosition::pre ? parts.norm : NormPart{NormKind::none});
  head = Linear(root / "head", width, num_classes, true, root.init().classifier(), config.logit_scale);
  std::vector<Attention*> all;
  for (TransformerBlock& block : blocks) all.push_back(&block.attn);
  number_heads(all);
}

Tensor Gpt::forward(const Tensor& tokens, const Mode& mode) const {
  const int64_t batch = tokens.dim(0), length = tokens.dim(1), width = config.embed_dim;
  check(length == context, "[gpt] sequences of ", context, " tokens are expected, given ", tokens.shape());
  Tensor x = embedding(tokens, embed()).view({batch, 1, length, width});   // [B, 1, T, D]
  mode.note("embed", x);
  for (const TransformerBlock& block : blocks) {
    x = mode.checkpoint_activations ? checkpoint([&](const Tensor& in) { return block(in, mode); }, x) : block(x, mode);
    mode.note(block.name, x);
  }
  const Tensor logits = head(norm(x.view({batch * length, width}), mode));
  mode.note("head", logits);
  return logits;
}

// Tokens are discrete, so the map begins at their embeddings. Rotary positions turn q and k and change no length.
Bound Gpt::bound(double, BoundTrace& trace) const {
  Bound b = Bound::tokenwise(1, BoundKind::certified, config.embed_dim, {context, config.embed_dim, trace.norms.row_length(embed)});
  for (const TransformerBlock& block : blocks) b = then(b, trace.note(block.name, "Block", block.bound(b.out, trace)));
  b = then(b, norm.bound(b.out, trace));
  return then(b, head.bound(b.out, trace));
}

double Gpt::published_bound(const NormSource& norms, double overshoot) const {
  const auto norm = [&](const Linear& l) { return overshoot * l.weight.raw_norm(norms) * std::sqrt(double(l.in) / double(l.out)); };
  const double share = blocks.empty() ? 0 : blocks[0].branch1.fixed_alpha;
  double reach = 1, bound = norms.row_length(embed) / std::sqrt(double(config.embed_dim));
  for (const TransformerBlock& block : blocks) {
    const Attention& a = block.attn;
    const double out = norm(a.proj), v = norm(a.v_proj), hidden = norm(block.mlp.fc1) * norm(block.mlp.fc2) / 1.1289;
    const double attention = out / 3 * (v + 2 * v * reach * reach * norm(a.q_proj) * norm(a.k_proj)) * a.part.scale;
    reach = (1 - share) * reach + share * out / 3 * v * reach;
    reach = (1 - share) * reach + share * hidden * reach;
    bound *= ((1 - share) + share * attention) * ((1 - share) + share * hidden);
  }
  return bound * norm(head) * config.logit_scale;
}

std::vector<const Attention*> Gpt::attentions() const {
  std::vector<const Attention*> all;
  for (const TransformerBlock& block : blocks) all.push_back(&block.attn);
  return all;
}

std::vector<const ResidualBranch*> Gpt::branches() const {
  std::vector<const ResidualBranch*> all;
  for (const TransformerBlock& block : blocks) all.insert(all.end(), {&block.branch1, &block.branch2});
  return all;
}
