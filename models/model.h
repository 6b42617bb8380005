// model.h: what the trainer needs of a model, whatever its family.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "layers/attention.h"
#include "layers/lipschitz/bound.h"
#include "layers/mode.h"
#include "layers/parameter.h"
#include "layers/residual.h"

// One step of the way through a model: its map and, beside it, its bound.
struct Stage {
  std::string name;
  std::function<Tensor(const Tensor&, const Mode&)> map;
  std::function<Bound(const Domain&, BoundTrace&)> bound;
  bool recomputable = false;   // run again in backward instead of keeping its activations, where the mode asks for that
};

// A sequence's mean over T tokens [B, T, C] -> [B, C]: constant 1 / sqrt T, and no longer than the longest token.
inline Bound mean_tokens_bound(const Domain& in, BoundTrace& trace) {
  return trace.note("mean_tokens", "Mean", Bound::of(1 / std::sqrt(Real(in.tokens)), BoundKind::certified, {1, in.width, in.radius}, 1));
}
// One token of them all: constant 1.
inline Bound select_token_bound(const Domain& in) { return Bound::identity({1, in.width, in.radius}); }

struct Model {
  ParameterStore store;
  // From the input to the logits; the last one is the classifier. The first takes patch rows [B, N, in_chans * P * P] or tokens [B, T]; the last
  // gives logits [B, num_classes], or [B * T, num_classes].
  std::vector<Stage> stages;
  int img_size = 0, in_chans = 0, num_classes = 0;
  int input_patch = 0;   // images come in as rows of patches of this side; 1: pixel by pixel, channels last
  int context = 0;       // > 0: a text model; tokens i32 [B, context] come in

  Model() = default;
  Model(const Model&) = delete;   // the stages point into it
  virtual ~Model() = default;
  Tensor forward(const Tensor& input, const Mode& mode) const { return run(0, stages.size(), input, mode); }
  // Of stages [first, last) only.
  Tensor run(size_t first, size_t last, const Tensor& input, const Mode& mode) const;
  // Bound of the map from normalised pixels to logits, in evaluation mode, for pixels whose patches have at most this l2 norm; for a text
  // model from the embedded tokens on.
  Bound bound(double patch_radius, BoundTrace& trace) const { return bound(0, stages.size(), input_domain(patch_radius), trace); }
  // Of stages [first, last): up to the features before the classifier, or of one block.
  Bound bound(size_t first, size_t last, const Domain& in, BoundTrace& trace) const;
  virtual Domain input_domain(double patch_radius) const = 0;
  virtual const Linear& classifier() const = 0;
  // Numbers of the widest activation of a sample: how many samples share a pass is chosen by it.
  virtual int64_t widest_activation() const = 0;
  virtual std::vector<const Attention*> attentions() const { return {}; }
  // The residual branches in the order in which a forward adds them.
  virtual std::vector<const ResidualBranch*> branches() const { return {}; }
  // Every norm, with where it is folded for inference. Fails with the reason where one cannot be.
  virtual std::vector<NormFold> norm_folds() const { return {}; }

  int heads() const {
    int n = 0;
    for (const Attention* a : attentions()) n += a->place.heads;
    return n;
  }
  // Learned residual scales, for the ledger.
  std::vector<Parameter> scales() const {
    std::vector<Parameter> all;
    for (const ResidualBranch* b : branches())
      if (b->alpha) all.push_back(b->alpha);
    return all;
  }

 protected:
  // A stage made of one layer that has both a map and a bound.
  template <class Layer> Stage stage_of(const std::string& name, const Layer& layer, bool recomputable = false) {
    return {name, [&layer](const Tensor& x, const Mode& mode) { return layer(x, mode); },
            [&layer](const Domain& in, BoundTrace& trace) { return layer.bound(in, trace); }, recomputable};
  }
  Stage stage_of(const Linear& layer) {
    return {layer.name, [&layer](const Tensor& x, const Mode&) { return layer(x); },
            [&layer](const Domain& in, BoundTrace& trace) { return layer.bound(in, trace); }};
  }
  // [B, H, W, C] -> [B, C]: a norm, and the mean of the tokens.
  Stage mean_stage(const Norm& norm) {
    return {"features", [&norm](const Tensor& x, const Mode& mode) { return mean_tokens(norm(x.view({x.dim(0), x.dim(1) * x.dim(2), x.dim(3)}), mode)); },
            [&norm](const Domain& in, BoundTrace& trace) {
              const Bound b = norm.bound(in, trace);
              return then(b, mean_tokens_bound(b.out, trace));
            }};
  }
  // Numbers the heads of all attentions; called at the end of construction.
  void number_heads(const std::vector<Attention*>& all) {
    int head = 0, index = 0;
    for (Attention* a : all) {
      a->index = index++;
      a->first_head = head;
      head += a->place.heads;
    }
  }
};
