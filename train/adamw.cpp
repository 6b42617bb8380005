// adamw.cpp: two passes over the flat buffers: gather and measure, then update.
#include "train/adamw.h"

#include <cmath>

namespace {

constexpr int64_t piece_size = 1 << 16;

template <class T> double add_and_measure(T* sum, const std::vector<const T*>& others, int64_t n) {
  for (const T* other : others)
    for (int64_t i = 0; i < n; i++) sum[i] += other[i];
  double squares = 0;
  for (int64_t begin = 0; begin < n; begin += 1024) {   // short runs in T, their sums in double
    T part = 0;
    const int64_t end = std::min(n, begin + 1024);
#pragma omp simd reduction(+ : part)
    for (int64_t i = begin; i < end; i++) part += sum[i] * sum[i];
    squares += double(part);
  }
  return squares;
}

template <class T> struct Update {
  const T* g;
  T *w, *m, *v, *ema;
  T clip, beta1, beta2, keep, rate, root2, eps, ema_decay;
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
    if (!ema) return;
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) ema[i] = u.ema_decay * ema[i] + (1 - u.ema_decay) * w[i];
  }
};

}  // namespace

AdamW::AdamW(ParameterStore& store, const AdamWOptions& options) : store_(store), options_(options) {
  m = Tensor::zeros({store.flat_size()}, store.dtype());
  v = Tensor::zeros({store.flat_size()}, store.dtype());
  if (options.ema_decay > 0) ema = store.values().to(Device{});
  for (size_t p = 0; p < store.parameters().size(); p++) {
    const ParameterInfo& info = store.parameters()[p];
    for (int64_t begin = 0; begin < info.size(); begin += piece_size)
      pieces_.push_back({int(p), info.offset + begin, info.offset + std::min(info.size(), begin + piece_size)});
  }
}

GradientNorms AdamW::gather(Workers& workers) {
  std::vector<double> squares(pieces_.size());
  dispatch(store_.dtype(), [&]<class T>() {
    if constexpr (std::is_same_v<T, bf16>) check(false, "[adamw] gradients are kept in f32 or f64");
    else
      workers.run(int64_t(pieces_.size()), [&](int64_t i) {
        const Piece& piece = pieces_[i];
        std::vector<const T*> others;
        for (int s = 1; s < store_.shards(); s++) others.push_back(store_.gradient(s).data<T>() + piece.begin);
        squares[i] = add_and_measure(store_.gradient(0).data<T>() + piece.begin, others, piece.end - piece.begin);
      });
  });
  GradientNorms norms;
  norms.parameters.resize(store_.parameters().size());
  for (size_t i = 0; i < pieces_.size(); i++) norms.parameters[pieces_[i].parameter] += squares[i];
  for (double& n : norms.parameters) {
    norms.total += n;
    n = std::sqrt(n);
  }
  norms.total = std::sqrt(norms.total);
  return norms;
}

void AdamW::update(Workers& workers, double lr, double grad_norm) {
  steps++;
  const double clip = options_.clip_grad > 0 ? std::min(1.0, options_.clip_grad / (grad_norm + 1e-6)) : 1;
  const double correction1 = 1 - std::pow(options_.beta1, double(steps)), correction2 = 1 - std::pow(options_.beta2, double(steps));
  dispatch(store_.dtype(), [&]<class T>() {
    if constexpr (std::is_same_v<T, bf16>) check(false, "[adamw] weights are kept in f32 or f64");
    else
      workers.run(int64_t(pieces_.size()), [&](int64_t i) {
        const Piece& piece = pieces_[i];
        const double decay = store_.parameters()[piece.parameter].decays() ? options_.weight_decay : options_.weight_decay_1d;
        const auto at = [&](const Tensor& flat) { return flat ? flat.data<T>() + piece.begin : nullptr; };
        Update<T>{at(store_.gradient(0)), at(store_.values()), at(m), at(v), at(ema), T(clip), T(options_.beta1), T(options_.beta2),
                  T(1 - lr * decay), T(lr / correction1), T(1 / std::sqrt(correction2)), T(options_.eps), T(options_.ema_decay)}
            .run(piece.end - piece.begin);
      });
  });
}
