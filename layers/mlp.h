// mlp.h: linear, activation, linear.
#pragma once
#include "layers/linear.h"

struct Mlp {
  std::string name;
  Activation activation = Activation::gelu;
  Linear fc1, fc2;

  Mlp() = default;
  Mlp(const Scope& scope, int64_t width, int64_t hidden, Activation activation = Activation::gelu)
      : name(scope.path()), activation(activation), fc1(scope / "fc1", width, hidden, true, scope.init().branch_start()),
        fc2(scope / "fc2", hidden, width, true, scope.init().branch_end(), activation == Activation::gelu_scaled ? 1 / gelu_divisor : 1) {}

  Tensor operator()(const Tensor& x) const {
    if (activation == Activation::relu || !fuses_mlp(x, fc1.out, fc2.out)) return fc2(fc1.with(activation, x));
    const LayerRange range(name);
    return mlp(x, fc1.map(), fc2.map());
  }
  // gelu_scaled: fc1's bound has GELU's slope, fc2's the division by it.
  Bound bound(const Domain& in, BoundTrace& trace) const {
    const Bound first = fc1.with_bound(activation, in, trace);
    return trace.note(name, "Mlp", then(first, fc2.bound(first.out, trace)));
  }
};
