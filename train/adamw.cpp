// adamw.cpp: one pass over weights, gradients and moments.
#include "train/adamw.h"

#include <cmath>

namespace {

template <class T> struct Update {
  const T* g;
  T *w, *m, *v;
  T clip, beta1, beta2, keep, rate, root2, eps;
  void run(int64_t n) const {
    const Update u = *this;
    T *w = u.w, *m = u.m, *v = u.v;
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) {
      const T g = u.g[i] * u.clip;
      m[i] = u.beta1 * m[i] + (1 - u.beta1) * g;
      v[i] = u.beta2 * v[i] + (1 - u.beta2) * g * g;
      w[i] = u.keep * w[i] - u.rate * m[i] / (std::sqrt(v[i]) * u.root2 + u.eps);
    }
  }
};

}  // namespace

AdamW::AdamW(ParameterStore& store, const OptimizerOptions& options)
    : AdamW(store, options, std::vector<bool>(store.parameters().size(), true)) {}

AdamW::AdamW(ParameterStore& store, const OptimizerOptions& options, const std::vector<bool>& parameters)
    : Optimizer(store, options), parameters_(parameters), packing_(store, parameters, options.mine), own_pieces_(pieces_of(mine_of(parameters))) {
  if (packing_.whole_size == 0) return;
  m_ = Tensor::zeros({packing_.size}, store.dtype());
  v_ = Tensor::zeros({packing_.size}, store.dtype());
}

void AdamW::step(Workers& workers, double lr, const GradientNorms& norms) {
  double squares = 0;
  bool all = true;
  for (size_t p = 0; p < parameters_.size(); p++) {
    all &= parameters_[p];
    if (parameters_[p]) squares += norms.parameters[p] * norms.parameters[p];
  }
  const double clip = clip_factor(all ? norms.total : std::sqrt(squares));
  const auto [beta1, beta2] = options_.betas;
  const double correction1 = 1 - std::pow(beta1, double(steps)), correction2 = 1 - std::pow(beta2, double(steps));
  each_piece(workers, own_pieces_, [&]<class T>(const Piece& piece) {
    const int64_t at = place(packing_, piece);
    Update<T>{store_.gradient(0).data<T>() + piece.begin, store_.values().data<T>() + piece.begin, m_.data<T>() + at, v_.data<T>() + at,
              T(clip), T(options_.betas[0]), T(options_.betas[1]), T(1 - lr * decay_of(piece.parameter)), T(lr / correction1),
              T(1 / std::sqrt(correction2)), T(options_.eps)}
        .run(piece.size());
  });
}

std::map<std::string, Tensor*> AdamW::state() {
  std::map<std::string, Tensor*> all = Optimizer::state();
  if (m_) all["adamw.m"] = &m_, all["adamw.v"] = &v_;
  return all;
}

std::map<std::string, const Packing*> AdamW::packings() const {
  if (!m_) return {};
  return {{"adamw.m", &packing_}, {"adamw.v", &packing_}};
}

std::unique_ptr<Optimizer> make_adamw(ParameterStore& store, const OptimizerOptions& options) {
  return std::make_unique<AdamW>(store, options);
}
