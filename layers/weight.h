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
  Buffer alpha_now;     // what W is multiplied with in this step, where it is not 1: of sigma_reparam and spectral_norm, or the factor
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
  Tensor alpha() const { return alpha_now(); }
  // The map's own numbers, for a kernel so small that its scalar is multiplied in.
  Tensor kernel() const {
    const Tensor w = matrix();
    return alpha_now ? multiply_channels(w.view({w.size(), 1}), alpha_now()).view(w.shape()) : w;
  }
  double scalar() const { return follows_sigma() ? alpha_now.raw().item() : factor; }

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
  bool follows_sigma() const { return kind == WeightPart::sigma_reparam || kind == WeightPart::spectral_norm; }
  void wrap(const Scope& scope, const Shape& shape) {
    const int64_t in = shape.size() / shape[0];
    if (follows_sigma() || factor != 1) alpha_now = scope.buffer("alpha", {1}, factor, false);
    if (kind == WeightPart::weight_norm) {
      gain = scope.parameter("gain", {shape[0]}, ParameterKind::vector, Init::ones());
      scope.store().row_gains.push_back({raw.index, gain.index});
    }
    if (kind == WeightPart::sigma_reparam) gain = scope.parameter("gamma", {1}, ParameterKind::vector, Init::ones());
    if (!follows_sigma()) return;
    const Buffer u = scope.buffer("u", {in}, 0);
    scope.store().spectral_weights.push_back({raw.index, gain ? gain.index : -1, u.index, alpha_now.index, factor,
                                              scope.rules().weight.gamma_is_sigma});
  }
};
