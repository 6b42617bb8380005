// parts.h: the choices of a recipe's [parts], as the models take them.
#pragma once
#include "layers/attention.h"
#include "layers/residual.h"

enum class NormPosition { pre, post };

struct Parts {
  NormPart norm;
  AttentionPart attention;
  ResidualPart residual = ResidualPart::plain;
  double alpha = 0;            // what the residual starts from; 0: the paper's own rule
  bool layer_scale = false;    // weighted, from the small start of its paper
  Activation activation = Activation::gelu;
  WeightRules weights;

  // Rules for a model of so many blocks with so many residual branches.
  WeightRules rules(int branches) const {
    WeightRules r = weights;
    r.init.branches = branches;
    return r;
  }
  double residual_start(int blocks, int branches) const {
    if (residual == ResidualPart::deepnorm) return std::pow(double(branches), 0.25);   // (2N)^(1/4), N layers of two branches
    if (alpha > 0) return alpha;
    if (residual == ResidualPart::convex) return 1.0 / branches;
    if (residual == ResidualPart::rezero) return weights.init.kind == InitRule::fixup ? 1 : 0;
    if (layer_scale) return blocks <= 18 ? 0.1 : blocks <= 24 ? 1e-5 : 1e-6;   // Touvron et al. 2021
    return 1.0 / blocks;                                                       // LipsFormer-Swin
  }
};
