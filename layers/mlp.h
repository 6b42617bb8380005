// mlp.h: linear, GELU, linear.
#pragma once
#include "layers/linear.h"

struct Mlp {
  std::string name;
  Linear fc1, fc2;

  Mlp() = default;
  Mlp(const Scope& scope, int64_t width, int64_t hidden)
      : name(scope.path()), fc1(scope / "fc1", width, hidden), fc2(scope / "fc2", hidden, width) {}

  Tensor operator()(const Tensor& x) const { return fc2(fc1.with_gelu(x)); }
  Bound bound(const Domain& in, BoundTrace& trace) const {
    const Bound first = fc1.with_gelu_bound(in, trace);
    return trace.note(name, "Mlp", then(first, fc2.bound(first.out, trace)));
  }
};
