// lars.cpp: layer-wise adaptive rates (You et al. 2017).
#include <cmath>

#include "train/optimizer.h"

namespace {

template <class T> struct Update {
  const T* g;
  T *w, *m;
  T clip, decay, momentum, rate;
  void run(int64_t n) const {
    const Update u = *this;
    T *w = u.w, *m = u.m;
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) {
      m[i] = u.momentum * m[i] + u.rate * (u.g[i] * u.clip + u.decay * w[i]);
      w[i] -= m[i];
    }
  }
};

template <class T> double sum_of_squares(const T* w, int64_t n) {
  double s = 0;
#pragma omp simd reduction(+ : s)
  for (int64_t i = 0; i < n; i++) s += double(w[i]) * double(w[i]);
  return s;
}

// Of each matrix or convolution: rate = lr * trust |w| / (|g| + wd |w| + eps), m = mu m + rate (g + wd w), w = w - m. Biases, norm weights,
// residual scales and tables take lr itself and no decay; so does a weight that is zero or has no gradient, or it could never leave zero.
class Lars : public MomentumOptimizer {
 public:
  using MomentumOptimizer::MomentumOptimizer;

 protected:
  void step(Workers& workers, double lr, const GradientNorms& norms) override {
    const double clip = clip_factor(norms.total);
    const std::vector<double> weights = weight_norms(workers);
    each_piece(workers, pieces_, [&]<class T>(const Piece& piece) {
      const bool adapts = store_.parameters()[piece.parameter].decays();
      const double w = weights[piece.parameter], g = norms.parameters[piece.parameter] * clip, decay = adapts ? options_.weight_decay : 0;
      const double trust = adapts && w > 0 && g > 0 ? options_.trust * w / (g + decay * w + options_.eps) : 1;
      Update<T>{store_.gradient(0).data<T>() + piece.begin, store_.values().data<T>() + piece.begin, m_.data<T>() + place(packing_, piece), T(clip),
                T(decay), T(options_.momentum), T(lr * trust)}
          .run(piece.size());
    });
  }

 private:
  std::vector<double> weight_norms(Workers& workers) {
    std::vector<double> squares(pieces_.size()), norms(store_.parameters().size());
    dispatch(store_.dtype(), [&]<class T>() {
      workers.run(int64_t(pieces_.size()), [&](int64_t i) {
        squares[i] = sum_of_squares(store_.values().data<T>() + pieces_[i].begin, pieces_[i].size());
      });
    });
    for (size_t i = 0; i < pieces_.size(); i++) norms[pieces_[i].parameter] += squares[i];
    for (double& n : norms) n = std::sqrt(n);
    return norms;
  }
};

}  // namespace

std::unique_ptr<Optimizer> make_lars(ParameterStore& store, const OptimizerOptions& options) {
  return std::make_unique<Lars>(store, options);
}
