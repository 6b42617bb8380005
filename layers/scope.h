// scope.h: the path used while a model is built: names parameters as PyTorch would and carries the rules of initialisation.
#pragma once
#include <string>

#include "layers/parameter.h"

// Which initialisation a model's layers draw from (DESIGN: part `init`).
struct InitRule {
  enum Kind { trunc_normal, xavier, spectral } kind = trunc_normal;

  // Weight of a linear layer. Swin: N(0, 0.02^2).
  Init matrix() const {
    if (kind == xavier) return {Init::xavier_normal};
    if (kind == spectral) return {Init::spectral};
    return {Init::normal, 0.02};
  }
  // Weight of a convolution; Swin leaves torch's default, U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
  Init convolution(int64_t fan_in) const { return kind == trunc_normal ? conv_bias(fan_in) : matrix(); }
  // Bias of a convolution: torch's default in all of them.
  static Init conv_bias(int64_t fan_in) { return {Init::uniform, 1.0 / std::sqrt(double(fan_in))}; }
};

class Scope {
 public:
  Scope(ParameterStore& store, InitRule rule) : store_(&store), rule_(rule) {}
  Scope operator/(const std::string& child) const {
    Scope s = *this;
    s.path_ = path_.empty() ? child : path_ + "." + child;
    return s;
  }
  Scope operator/(int index) const { return *this / std::to_string(index); }
  const std::string& path() const { return path_; }
  const InitRule& rule() const { return rule_; }
  ParameterStore& store() const { return *store_; }

  Parameter parameter(const std::string& name, const Shape& shape, ParameterKind kind, const Init& init, int64_t map_height = 0,
                      int64_t map_width = 0) const {
    return {store_, store_->add({(*this / name).path(), shape, kind, init, map_height, map_width})};
  }

 private:
  ParameterStore* store_;
  InitRule rule_;
  std::string path_;
};
