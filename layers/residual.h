// residual.h: the part `residual`: y = skip x + drop(alpha f(x)).
//
//   plain        skip 1, alpha 1
//   weighted     alpha a learned weight a channel                 (LipsFormer; layer_scale is the same from a smaller start, Touvron et al. 2021)
//   rezero       alpha one learned number, 0 at the start         (Bachlechner et al. 2020; fixup starts it at 1)
//   convex       skip 1 - a, alpha a, fixed                       (Newhouse et al. 2025: a = 1 / number of branches)
//   deepnorm     skip (2N)^(1/4), alpha 1, a norm behind it       (Wang et al. 2022)
//   admin        skip a learned vector omega, a norm behind it    (Liu et al. 2020)
#pragma once
#include "layers/depthwise_conv.h"
#include "layers/norm.h"

enum class ResidualPart { plain, weighted, rezero, convex, deepnorm, admin };

// One branch's scale and stochastic depth. The sum itself is an op (or part of the norm that follows it).
struct ResidualBranch {
  std::string name;
  ResidualPart part = ResidualPart::plain;
  Parameter alpha;   // [C] weighted, [1] rezero
  Parameter omega;   // [C] admin
  double fixed_alpha = 1, skip = 1;
  double drop_rate = 0;

  ResidualBranch() = default;
  // `start` is the initial alpha, for convex and deepnorm the constant itself. The branch's path is its random stream: all draw independently.
  ResidualBranch(const Scope& scope, int64_t width, ResidualPart part, double start, double drop_rate)
      : name(scope.path()), part(part), drop_rate(drop_rate) {
    if (part == ResidualPart::weighted) alpha = scope.parameter("scale", {width}, ParameterKind::vector, {Init::constant, start});
    if (part == ResidualPart::rezero) alpha = scope.parameter("scale", {1}, ParameterKind::vector, {Init::constant, start});
    if (part == ResidualPart::admin) omega = scope.parameter("omega", {width}, ParameterKind::vector, Init::ones());
    if (part == ResidualPart::convex) skip = 1 - start, fixed_alpha = start;
    if (part == ResidualPart::deepnorm) skip = start;
  }

  DropPath drop(const Mode& mode) const {
    if (!mode.random() || drop_rate == 0) return {};
    return {drop_rate, RandomStream(mode.seed, name + ".drop_path"), mode.step, mode.first_sample};
  }
  Tensor weights(const Tensor& f) const { return fixed_alpha == 1 ? alpha() : Tensor::full({1}, fixed_alpha, DType::f64, f.device()); }
  // What the branch is added to, but for the factor `skip`.
  Tensor trunk(const Tensor& x) const { return omega ? multiply_channels(x, omega()) : x; }

  Tensor operator()(const Tensor& x, const Tensor& f, const Mode& mode) const {
    const LayerRange range(name);
    mode.note_branch(f);
    return residual(trunk(x), f, weights(f), drop(mode), skip);
  }
  // Branches that end in a GELU, in one pass with the sum where nothing else stands between the two: x + alpha gelu(layer(in)), x + alpha gelu(conv(x)).
  Tensor with_gelu_of(const Linear& layer, const Tensor& x, const Tensor& in, const Mode& mode) const {
    if (omega || mode.branch_variances) return (*this)(x, layer.with_gelu(in), mode);
    const LayerRange range(layer.name);
    return linear_gelu_residual(x, in, layer.map(), weights(in), drop(mode), skip);
  }
  Tensor with_gelu_of(const DepthwiseConv& layer, const Tensor& x, const Mode& mode) const {
    if (omega || mode.branch_variances) return (*this)(x, layer.with_gelu(x), mode);
    const LayerRange range(layer.name);
    return depthwise_conv_gelu_residual(x, layer.weight.kernel(), layer.bias(), weights(x), drop(mode), skip);
  }
  // The sum and its norm, in one pass where there is one.
  Sum with_norm(const Norm& norm, const Tensor& x, const Tensor& f, bool keep_sum, const Mode& mode) const {
    mode.note_branch(f);
    return norm.after_residual(trunk(x), f, weights(f), drop(mode), skip, keep_sum, mode);
  }
  // |skip| + max|alpha| L_f in evaluation mode, where no path is dropped.
  Bound bound(const Domain& in, const Bound& branch, BoundTrace& trace) const {
    const double trunk = omega ? max_abs(omega) : skip;
    return trace.note(name, "Residual", residual_bound(in, branch, alpha ? max_abs(alpha) : fixed_alpha, trunk));
  }
};
