// residual.h: the alpha of y = skip x + drop(alpha * f): [C] a weight a channel, [1] for all of them, or empty, as ops take it that add f themselves.
#pragma once
#include "engine/map.h"

namespace residual_sum {

template <class C> struct Spread {   // one number for every channel
  const C* value;   // null: 1
  C* all;
  HD void operator()(int64_t i) const { all[i] = value ? *value : C(1); }
};

template <class C> struct SumOfChannels {   // in f64, since they may cancel
  const C* channels;
  C* sum;
  int64_t n;
  template <class Team> HD void operator()(int64_t, const Team& team) const {
    const double s = team.template sum<double>(n, [&](int64_t i) { return double(channels[i]); });
    if (team.leads()) *sum = C(s);
  }
};

// alpha as a number a channel.
inline Tensor by_channel(const Tensor& alpha, int64_t columns) {
  if (!alpha || alpha.size() == columns) return alpha;
  const Tensor all = Tensor::empty({columns}, alpha.dtype(), alpha.device());
  dispatch(alpha.dtype(), [&]<class C>() { map(alpha.device(), columns, Spread<C>{alpha.data<C>(), all.data<C>()}); });
  return all;
}

// The same in the type in which an op on x computes, 1 where there is no alpha.
inline Tensor every_channel(const Tensor& alpha, const Tensor& x, int64_t columns) {
  if (alpha) return by_channel(computed(alpha, x.dtype()), columns);
  const Tensor all = Tensor::empty({columns}, x.dtype() == DType::f64 ? DType::f64 : DType::f32, x.device());
  dispatch(all.dtype(), [&]<class C>() { map(all.device(), columns, Spread<C>{nullptr, all.data<C>()}); });
  return all;
}

// Adds the channels' sums [1, C] to the gradient of alpha, whichever its shape.
template <class C> void add_alpha_gradient(const Tensor& sums, const Tensor& alpha) {
  if (alpha.size() == sums.dim(1)) return add_sums<C>(sums, 0, alpha);
  const Tensor sum = Tensor::empty({1, 1}, sums.dtype(), sums.device());
  count_kernel({sums}, {sum});
  map_rows(sums.device(), 1, SumOfChannels<C>{sums.data<C>(), sum.data<C>(), sums.dim(1)});
  add_sums<C>(sum, 0, alpha);
}

template <class C> struct Scaled {   // dx = skip dy
  C factor;
  HD C operator()(C dy) const { return factor * dy; }
};

// The gradient of x in skip x + ..., as the last use of dy.
inline void pass_on_skipped(const Tensor& dy, const Tensor& x, double skip) {
  if (!x.wants_grad()) return;
  if (skip == 1) return pass_on(dy, x);
  auto [dx, beta] = into(x);
  count_kernel({dy}, {Into{dx, beta}});
  dispatch(dy.dtype(), [&]<class T>() {
    map_values(dy.device(), dy.size(), dx.data<T>(), beta != 0, Scaled<Compute<T>>{Compute<T>(skip)}, dy.data<T>());
  });
}

inline void check_alpha(const char* op, const Tensor& alpha, int64_t columns) {
  check(!alpha || alpha.size() == columns || alpha.size() == 1, "[", op, "] alpha is ", alpha.shape(), ", expected [", columns, "] or [1]");
}

}  // namespace residual_sum
