// window_attention_lepe.h: LePE's kernels and biases around window_attention: what they must be, and how their gradients are put together.
#pragma once
#include <vector>

#include "engine/map.h"
#include "engine/ops/window_attention.h"
#include "engine/profile.h"

// One for each shape of windows, of the channels of its heads.
inline void check_lepe(const char* op, const std::vector<Lepe>& lepe, const WindowAttention& c, const Tensor& values, int64_t channels) {
  if (lepe.empty()) return;
  const size_t shapes = c.cross_shaped ? 2 : 1;
  check(lepe.size() == shapes, '[', op, "] LePE has a kernel for each shape of windows: ", shapes, ", not ", lepe.size());
  check(c.shift == 0, '[', op, "] LePE is of windows that are not shifted, given a shift of ", c.shift);
  const Shape weight{channels / int64_t(shapes), 1, 3, 3};
  for (const Lepe& l : lepe) {
    check(l.weight.shape() == weight && l.bias && l.bias.size() == weight[0], '[', op, "] LePE's kernel must be ", weight, " with a bias of ", weight[0],
          ", given ", l.weight.shape(), " and ", l.bias ? l.bias.shape() : Shape{0});
    check(l.weight.device() == values.device() && l.bias.device() == values.device(), '[', op, "] the values are on ", values.device(),
          ", LePE's kernel on ", l.weight.device(), ", its bias on ", l.bias.device());
  }
}

// sums [9, C] of the taps to the gradient of the kernel [C, 1, 3, 3].
template <class C, class T> struct AddTaps {
  const C* sums;
  T* grad;
  int64_t channels;
  bool add;
  HD void operator()(int64_t i) const {
    grad[i] = T((add ? Compute<T>(grad[i]) : Compute<T>(0)) + Compute<T>(sums[i % lepe_taps * channels + i / lepe_taps]));
  }
};

// Adds the chunks' sums [chunks, 10, C] to the gradients of a kernel and its bias.
template <class C> void add_lepe_gradients(const Tensor& partial, const Lepe& lepe) {
  const int64_t channels = lepe.bias.size();
  const Tensor sums = Tensor::empty({lepe_sums, channels}, dtype_of<C>, partial.device());
  count_kernel({partial}, {sums});
  sum_chunks<C>(partial, sums);
  add_sums<C>(sums, lepe_taps, lepe.bias);
  if (!lepe.weight.wants_grad()) return;
  auto [grad, beta] = into(lepe.weight);
  count_kernel({grad.size() * int64_t(sizeof(C))}, {Into{grad, beta}});
  dispatch(grad.dtype(), [&]<class T>() { map(grad.device(), grad.size(), AddTaps<C, T>{sums.data<C>(), grad.data<T>(), channels, beta != 0}); });
}
