// model.h: what the trainer needs of a model, whatever its family.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "layers/attention.h"
#include "layers/lipschitz/bound.h"
#include "layers/mode.h"
#include "layers/parameter.h"
#include "layers/residual.h"

struct Model {
  ParameterStore store;
  int img_size = 0, in_chans = 0, num_classes = 0;
  int input_patch = 0;   // images come in as rows of patches of this side; 1: pixel by pixel, channels last
  int context = 0;       // > 0: a text model; tokens i32 [B, context] come in

  virtual ~Model() = default;
  // patch rows [B, N, in_chans * P * P] -> logits [B, num_classes]; or tokens [B, T] -> logits [B * T, num_classes]
  virtual Tensor forward(const Tensor& input, const Mode& mode) const = 0;
  // Bound of the map from normalised pixels to logits, in evaluation mode, for pixels whose patches have at most this l2 norm; for a text
  // model from the embedded tokens on.
  virtual Bound bound(double patch_radius, BoundTrace& trace) const = 0;
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

// A sequence's mean over T tokens: constant 1 / sqrt T, and no longer than the longest token.
inline Bound mean_tokens_bound(const Domain& in, BoundTrace& trace) {
  Bound mean = Bound::of(1 / std::sqrt(double(in.tokens)), BoundKind::certified, {1, in.width, in.radius});
  mean.rms = 1;
  return trace.note("mean_tokens", "Mean", mean);
}
