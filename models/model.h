// model.h: what the trainer needs of a model, whatever its family.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "layers/lipschitz/bound.h"
#include "layers/mode.h"
#include "layers/parameter.h"

// An attention layer as the ledger sees it.
struct AttentionInfo {
  std::string name;
  int heads = 0, first_head = 0;
  int64_t tokens = 0;   // that attend to each other: the entropy of a head is at most ln(tokens)
};

struct Model {
  ParameterStore store;
  int img_size = 0, patch_size = 0, in_chans = 0, num_classes = 0;

  virtual ~Model() = default;
  // patch rows [B, N, in_chans * P * P] -> logits [B, num_classes]
  virtual Tensor forward(const Tensor& patches, const Mode& mode) const = 0;
  // Bound of the map from normalised pixels to logits, in evaluation mode, for pixels whose patches have at most this l2 norm.
  virtual Bound bound(double patch_radius, BoundTrace& trace) const = 0;
  virtual std::vector<AttentionInfo> attentions() const = 0;
  // Residual scales alpha, for the ledger.
  virtual std::vector<Parameter> scales() const = 0;

  int heads() const {
    int n = 0;
    for (const AttentionInfo& a : attentions()) n += a.heads;
    return n;
  }
};
