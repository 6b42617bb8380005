// lion.cpp: Lion (Chen et al. 2023): the sign of an interpolated momentum.
#include "train/optimizer.h"

namespace {

template <class T> struct Update {
  const T* g;
  T *w, *m;
  T clip, beta1, beta2, keep, rate;
  void run(int64_t n) const {
    const Update u = *this;
    T *w = u.w, *m = u.m;
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) {
      const T g = u.g[i] * u.clip;
      const T c = u.beta1 * m[i] + (1 - u.beta1) * g;
      const T sign = T(c > 0) - T(c < 0);
      w[i] = u.keep * w[i] - u.rate * sign;
      m[i] = u.beta2 * m[i] + (1 - u.beta2) * g;
    }
  }
};

// c = b1 m + (1-b1) g, w = (1 - lr wd) w - lr sign(c), m = b2 m + (1-b2) g.
class Lion : public MomentumOptimizer {
 public:
  using MomentumOptimizer::MomentumOptimizer;

 protected:
  void step(Workers& workers, double lr, const GradientNorms& norms) override {
    const double clip = clip_factor(norms.total);
    each_piece(workers, pieces_, [&]<class T>(const Piece& piece) {
      Update<T>{store_.gradient(0).data<T>() + piece.begin, store_.values().data<T>() + piece.begin, m_.data<T>() + place(packing_, piece), T(clip),
                T(options_.betas[0]), T(options_.betas[1]), T(1 - lr * decay_of(piece.parameter)), T(lr)}
          .run(piece.size());
    });
  }
};

}  // namespace

std::unique_ptr<Optimizer> make_lion(ParameterStore& store, const OptimizerOptions& options) {
  return std::make_unique<Lion>(store, options);
}
