// gpt.cpp: the decoder-only Transformer, forward and bound side by side.
#include "models/gpt.h"

Gpt::Gpt(const GptConfig& config) : config(config) {
  context = config.context;
  num_classes = config.vocab_size;
  if (config.num_heads < 1 || config.embed_dim % config.num_heads != 0)
    fail(Exit::config, "model.embed_dim ", config.embed_dim, " is not a multiple of model.num_heads ", config.num_heads);
  const Scope root(store, config.parts.rules(2 * config.depth));
  const int64_t width = config.embed_dim;
  embed = (root / "embed").parameter("weight", {config.vocab_size, width}, ParameterKind::embedding, {Init::unit_rows});
  const AttentionPlace place{.heads = config.num_heads, .window_height = 1, .window_width = context, .qkv_bias = config.qkv_bias, .causal = true,
                             .rotary_base = config.rotary_base, .rotary_still = config.rotary_still};
  add_blocks(root, config, config.norm_position, place, config.logit_scale);
  // Tokens are discrete, so the map that has a bound begins at their embeddings. Rotary positions turn q and k and change no length.
  stages.push_back({"embed",
                    [this](const Tensor& tokens, const Mode&) {
                      const int64_t batch = tokens.dim(0), length = tokens.dim(1);
                      check(length == context, "[gpt] sequences of ", context, " tokens are expected, given ", tokens.shape());
                      return embedding(tokens, embed()).view({batch, 1, length, this->config.embed_dim});   // [B, 1, T, D]
                    },
                    [this](const Domain& in, BoundTrace& trace) { return Bound::identity({in.tokens, in.width, trace.norms.row_length(embed)}); }});
  add_stages([](const Tensor& x) { return x.view({x.dim(0) * x.dim(1), x.dim(2)}); }, [](const Domain& in, BoundTrace&) { return Bound::identity(in); });
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
