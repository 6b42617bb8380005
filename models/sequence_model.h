// sequence_model.h: what ViT, T2T-ViT and GPT have in common: a row of blocks over one sequence, a norm and a linear head.
#pragma once
#include "models/model.h"
#include "models/transformer_block.h"

struct SequenceModel : Model {
  std::vector<TransformerBlock> blocks;
  Norm norm;
  Linear head;

  std::vector<const Attention*> attentions() const override {
    std::vector<const Attention*> all;
    for (const TransformerBlock& block : blocks) all.push_back(&block.attn);
    return all;
  }
  std::vector<const ResidualBranch*> branches() const override {
    std::vector<const ResidualBranch*> all;
    for (const TransformerBlock& block : blocks) all.insert(all.end(), {&block.branch1, &block.branch2});
    return all;
  }

 protected:
  // Lays out blocks, norm and head from any family's config; drop path grows linearly over the blocks.
  template <class Config> void add_blocks(const Scope& root, const Config& config, NormPosition position, const AttentionPlace& place, double logit_scale) {
    const int64_t width = config.embed_dim, hidden = int64_t(double(width) * config.mlp_ratio);
    const double start = config.parts.residual_start(config.depth, 2 * config.depth);
    for (int i = 0; i < config.depth; i++) {
      const Scope scope = root / "blocks" / i;
      const double drop = config.depth > 1 ? config.drop_path_rate * i / (config.depth - 1) : 0;
      blocks.emplace_back(scope, scope / "attn", config.parts, position, place, width, hidden, start, drop);
    }
    // Behind post-norm blocks there is nothing left to normalise.
    norm = Norm(root / "norm", width, position == NormPosition::pre ? config.parts.norm : NormPart{NormKind::none});
    head = Linear(root / "head", width, num_classes, true, root.init().classifier(), logit_scale);
    std::vector<Attention*> all;
    for (TransformerBlock& block : blocks) all.push_back(&block.attn);
    number_heads(all);
  }

  // Behind the stage that embeds: the blocks, the norm with what `features` takes of its tokens, the head.
  void add_stages(std::function<Tensor(const Tensor&)> features, std::function<Bound(const Domain&, BoundTrace&)> features_bound) {
    for (const TransformerBlock& block : blocks)
      stages.push_back({block.name, [&block](const Tensor& x, const Mode& mode) { return block(x, mode); },
                        [&block](const Domain& in, BoundTrace& trace) { return trace.note(block.name, "Block", block.bound(in, trace)); }, true});
    stages.push_back({"features",
                      [this, features](const Tensor& x, const Mode& mode) {   // [B, 1, N, D]
                        return features(norm(x.view({x.dim(0), x.dim(2), x.dim(3)}), mode));
                      },
                      [this, features_bound](const Domain& in, BoundTrace& trace) {
                        const Bound b = norm.bound(in, trace);
                        return then(b, features_bound(b.out, trace));
                      }});
    stages.push_back(stage_of(head));
  }
  const Linear& classifier() const override { return head; }
};
