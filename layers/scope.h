// scope.h: the path used while a model is built: names parameters as PyTorch would and carries the rules for its weights.
#pragma once
#include <string>

#include "layers/parameter.h"

// Which initialisation a model's layers draw from (DESIGN: part `init`).
struct InitRule {
  enum Kind { trunc_normal, xavier, spectral, orthogonal, fixup, deepnorm } kind = trunc_normal;
  int branches = 1;   // residual branches of the model: what fixup and deepnorm scale by

  // Weight of a linear layer. Swin: N(0, 0.02^2).
  Init matrix() const {
    if (kind == xavier || kind == deepnorm) return {Init::xavier_normal, 1};
    if (kind == spectral) return {Init::spectral};
    if (kind == orthogonal) return {Init::orthogonal, 1};
    return {Init::normal, 0.02};
  }
  // The first weights of a residual branch, and the one that ends it. Fixup (Zhang et al. 2019), two layers a branch: L^(-1/2), zero.
  // DeepNorm (Wang et al. 2022), N layers of two branches: gain (8N)^(-1/4). Orthogonal (Newhouse et al. 2025): the last is zero.
  Init branch_start(bool scaled_by_deepnorm = true) const {
    Init init = matrix();
    if (kind == fixup) init.value = 0.02 / std::sqrt(double(branches));
    if (kind == deepnorm && scaled_by_deepnorm) init.value = std::pow(4.0 * branches, -0.25);
    return init;
  }
  Init branch_end() const {
    if (kind == fixup || kind == orthogonal) return Init::zeros();
    return branch_start();
  }
  Init classifier() const { return kind == fixup || kind == orthogonal ? Init::zeros() : matrix(); }
  // Weight of a convolution; Swin leaves torch's default, U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
  Init convolution(int64_t fan_in) const { return kind == trunc_normal || kind == fixup ? conv_bias(fan_in) : matrix(); }
  // Bias of a convolution: torch's default in all of them.
  static Init conv_bias(int64_t fan_in) { return {Init::uniform, 1.0 / std::sqrt(double(fan_in))}; }
};

// What stands between a stored matrix and the map that it makes (DESIGN: part `weight`).
struct WeightPart {
  enum Kind { plain, sigma_reparam, spectral_norm, weight_norm } kind = plain;
  bool gamma_is_sigma = true;   // sigma_reparam: gamma starts at the spectral norm (released vision code) or at 1 (paper)
};

struct WeightRules {
  InitRule init;
  WeightPart weight;
  bool bias = true;   // of linear layers and convolutions
};

// What a matrix is a stack of, by rows: `groups` independent matrices for optimizers and constraints (3 for q, k and v), `blocks` that bounds look at
// one by one (the heads of each).
struct RowParts {
  int64_t groups = 1, blocks = 1;
};

class Scope {
 public:
  Scope(ParameterStore& store, const WeightRules& rules) : store_(&store), rules_(rules) {}
  Scope operator/(const std::string& child) const {
    Scope s = *this;
    s.path_ = path_.empty() ? child : path_ + "." + child;
    return s;
  }
  Scope operator/(int index) const { return *this / std::to_string(index); }
  Scope without_bias() const {
    Scope s = *this;
    s.rules_.bias = false;
    return s;
  }
  const std::string& path() const { return path_; }
  const InitRule& init() const { return rules_.init; }
  const WeightRules& rules() const { return rules_; }
  ParameterStore& store() const { return *store_; }

  Parameter parameter(const std::string& name, const Shape& shape, ParameterKind kind, const Init& init, int64_t map_height = 0,
                      int64_t map_width = 0) const {
    return {store_, store_->add({(*this / name).path(), shape, kind, init, map_height, map_width})};
  }
  Parameter matrix(const std::string& name, const Shape& shape, const Init& init, const RowParts& rows) const {
    return {store_, store_->add({.name = (*this / name).path(), .shape = shape, .kind = ParameterKind::matrix, .init = init,
                                 .row_groups = rows.groups, .row_blocks = rows.blocks})};
  }
  Buffer buffer(const std::string& name, const Shape& shape, const Init& init, bool persistent = true, bool frozen = false) const {
    return {store_, store_->add_buffer({(*this / name).path(), shape, init, persistent, frozen})};
  }
  Buffer buffer(const std::string& name, const Shape& shape, double value, bool persistent = true) const {
    return buffer(name, shape, Init{Init::constant, value}, persistent);
  }

 private:
  ParameterStore* store_;
  WeightRules rules_;
  std::string path_;
};
