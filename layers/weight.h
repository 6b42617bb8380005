// weight.h: the part `weight`: a stored matrix W and the map that it makes.
//
//   plain           factor W
//   sigma_reparam   factor gamma / sigma(W) W, gamma learned                    (Zhai et al. 2023)
//   spectral_norm   factor / sigma(W) W                                         (Miyato et al. 2018)
//   weight_norm     factor diag(gain_r / |W_r|) W, gain learned, a row each     (Salimans and Kingma 2016)
//
// Except for weight_norm no second matrix is formed: what W is multiplied with is the scalar of the product. sigma(W) is followed by one
// power iteration a step (layers/lipschitz/spectral_weights.h).
#pragma once
#include "layers/lipschitz/spectral_norms.h"
#include "layers/scope.h"

struct Weight {
  WeightPart::Kind kind = WeightPart::plain;
  Parameter raw;        // [out, in] or a convolution's [out, in, k, k]
  Parameter gain;       // sigma_reparam: gamma [1]; weight_norm: [out]
  Buffer alpha_now;     // sigma_reparam and spectral_norm: what W is multiplied with in this step
  double factor = 1;    // a constant that the layer asks for

  Weight() = default;
  Weight(const Scope& scope, const Shape& shape, const Init& init, double factor = 1, const RowParts& rows = {})
      : kind(scope.rules().weight.kind), factor(factor) {
    Init start = init;
    // Orthogonal matrices start with an operator norm of 1 between RMS norms.
    if (init.kind == Init::orthogonal) start.value *= std::sqrt(double(shape[0] / rows.groups) / double(shape.size() / shape[0]));
    raw = scope.matrix("weight", shape, start, rows);
    wrap(scope, shape);
  }
  // Around a parameter of another kind: a depthwise convolution.
  Weight(const Scope& scope, const Parameter& parameter, const Shape& shape) : kind(scope.rules().weight.kind), raw(parameter) { wrap(scope, shape); }

  // The matrix of the product, and its scalar (empty: 1).
  Tensor matrix() const { return kind == WeightPart::weight_norm ? weight_norm(raw(), gain()) : raw(); }
  Tensor alpha() const {
    if (alpha_now) return alpha_now();
    return factor == 1 ? Tensor() : Tensor::full({1}, factor, DType::f64, raw().device());
  }
  double scalar() const { return alpha_now ? alpha_now().item() : factor; }

  double raw_norm(const NormSource& norms) const { return norms.sigma(raw); }   // of the stored matrix, without its factor
  // Spectral norm of the map, and of each of its row blocks. Rows of weight_norm have length |gain_r|, so |W^| <= |gain|.
  double norm(const NormSource& norms) const {
    return kind == WeightPart::weight_norm ? std::abs(factor) * l2_norm(gain) : std::abs(scalar()) * norms.sigma(raw);
  }
  std::vector<double> block_norms(const NormSource& norms) const {
    const double multiple = std::abs(scalar());
    if (kind == WeightPart::weight_norm) return std::vector<double>(size_t(raw.info().row_blocks), norm(norms));
    std::vector<double> all = norms.block_sigmas(raw);
    for (double& sigma : all) sigma *= multiple;
    return all;
  }
  // Of a depthwise convolution, on the map it runs over. With weight_norm a channel's operator has norm at most K |w_c|, otherwise it is followed as
  // the operator that it is.
  double convolution_norm(const NormSource& norms) const {
    return kind == WeightPart::weight_norm ? double(raw.info().shape[2]) * longest_row() : norm(norms);
  }
  // Of a convolution whose patches overlap.
  double sliding_norm(const NormSource& norms) const {
    const ParameterInfo& info = raw.info();
    return kind == WeightPart::weight_norm ? std::ceil(double(info.shape[2]) / double(info.stride)) * norm(norms)
                                           : std::abs(scalar()) * norms.sliding_sigma(raw);
  }
  // The longest row of the map, a kernel's channel in a depthwise convolution.
  double longest_row() const {
    if (kind == WeightPart::weight_norm) return std::abs(factor) * max_abs(gain);
    return std::abs(scalar()) * longest_row_of(raw, raw.info().shape[0]);
  }
  BoundKind norm_kind(const NormSource& norms) const { return kind == WeightPart::weight_norm ? BoundKind::certified : norms.kind(); }

 private:
  void wrap(const Scope& scope, const Shape& shape) {
    const int64_t in = shape.size() / shape[0];
    if (kind == WeightPart::weight_norm) {
      gain = scope.parameter("gain", {shape[0]}, ParameterKind::vector, Init::ones());
      scope.store().row_gains.push_back({raw.index, gain.index});
    }
    if (kind == WeightPart::sigma_reparam) gain = scope.parameter("gamma", {1}, ParameterKind::vector, Init::ones());
    if (kind != WeightPart::sigma_reparam && kind != WeightPart::spectral_norm) return;
    const Buffer u = scope.buffer("u", {in}, 0);
    alpha_now = scope.buffer("alpha", {1}, 1, false);
    scope.store().spectral_weights.push_back({raw.index, gain ? gain.index : -1, u.index, alpha_now.index, factor,
                                              scope.rules().weight.gamma_is_sigma});
  }
};
