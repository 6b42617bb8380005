// residual.h: the part `residual`: y = x + drop(alpha * f(x)), alpha a learned weight a channel (weighted) or 1 (plain).
#pragma once
#include "layers/linear.h"

enum class ResidualPart { plain, weighted };

// One branch's scale and stochastic depth. The sum itself is an op (or part of the norm that follows it).
struct ResidualBranch {
  std::string name;
  Parameter alpha;   // [C]; absent for the plain residual
  double drop_rate = 0;

  ResidualBranch() = default;
  // `drop_name` is the random stream of this branch: all branches draw independently.
  ResidualBranch(const Scope& scope, int64_t width, ResidualPart part, double initial_alpha, double drop_rate)
      : name(scope.path()), drop_rate(drop_rate) {
    if (part == ResidualPart::weighted) alpha = scope.parameter("scale", {width}, ParameterKind::vector, {Init::constant, initial_alpha});
  }

  DropPath drop(const Mode& mode) const {
    if (!mode.training || drop_rate == 0) return {};
    return {drop_rate, RandomStream(mode.seed, name + ".drop_path"), mode.step, mode.first_sample};
  }
  Tensor operator()(const Tensor& x, const Tensor& f, const Mode& mode) const {
    const LayerRange range(name);
    return residual(x, f, alpha(), drop(mode));
  }
  // 1 + max|alpha| L_f in evaluation mode, where no path is dropped.
  Bound bound(const Domain& in, const Bound& branch, BoundTrace& trace) const {
    return trace.note(name, "Residual", residual_bound(in, branch, alpha ? max_abs(alpha) : 1));
  }
};
