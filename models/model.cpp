// model.cpp: a model is its stages, one after another.
#include "models/model.h"

Tensor Model::run(size_t first, size_t last, const Tensor& input, const Mode& mode) const {
  Tensor x = input;
  for (size_t i = first; i < last; i++) {
    const Stage& stage = stages[i];
    x = mode.checkpoint_activations && stage.recomputable ? checkpoint([&](const Tensor& in) { return stage.map(in, mode); }, x) : stage.map(x, mode);
    mode.note(stage.name, x);
  }
  return x;
}

Bound Model::bound(size_t first, size_t last, const Domain& in, BoundTrace& trace) const {
  Bound b = Bound::identity(in);
  for (size_t i = first; i < last; i++) {
    Bound stage = stages[i].bound(b.out, trace);
    if (stage.tree && stage.tree->name != stages[i].name) stage = trace.note(stages[i].name, "Stage", stage);   // made of several layers
    b = then(b, stage);
  }
  return b;
}
