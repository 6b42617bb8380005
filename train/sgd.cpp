// sgd.cpp: stochastic gradient descent with momentum (torch.optim.SGD).
#include "train/optimizer.h"

namespace {

template <class T> struct Update {
  const T* g;
  T *w, *m;
  T clip, decay, momentum, rate;
  bool nesterov;
  void run(int64_t n) const {
    const Update u = *this;
    T *w = u.w, *m = u.m;
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) {
      const T d = u.g[i] * u.clip + u.decay * w[i];
      m[i] = u.momentum * m[i] + d;
      w[i] -= u.rate * (u.nesterov ? d + u.momentum * m[i] : m[i]);
    }
  }
};

// d = g + wd w, m = mu m + d, w = w - lr m, or w - lr (d + mu m) by Nesterov. The decay is part of the gradient, as in torch.
class Sgd : public MomentumOptimizer {
 public:
  using MomentumOptimizer::MomentumOptimizer;

 protected:
  void step(Workers& workers, double lr, const GradientNorms& norms) override {
    const double clip = clip_factor(norms.total);
    each_piece(workers, pieces_, [&]<class T>(const Piece& piece) {
      Update<T>{store_.gradient(0).data<T>() + piece.begin, store_.values().data<T>() + piece.begin, m_.data<T>() + place(packing_, piece), T(clip),
                T(decay_of(piece.parameter)), T(options_.momentum), T(lr), options_.nesterov}
          .run(piece.size());
    });
  }
};

}  // namespace

std::unique_ptr<Optimizer> make_sgd(ParameterStore& store, const OptimizerOptions& options) {
  return std::make_unique<Sgd>(store, options);
}
