// window_attention_lepe_cpu.h: LePE of a window of one head on the CPU, on rows padded to whole vectors.
#pragma once
#include <algorithm>

#include "engine/ops/window_attention.h"
#include "engine/small_gemm.h"

// Rows of a window's tokens. Those that were normalised are looked at as they were before.
template <class C> struct PlainRows {
  const C* rows;
  const C* inverse;   // what each was multiplied with; null: nothing
  int dim;            // padded
  typename Vector<C>::type load(int i, int c) const {
    const auto v = Vector<C>::load(rows + i * dim + c);
    return inverse ? v / inverse[i] : v;
  }
};

// A head's taps and bias, a row each, and the sums of their gradients.
template <class C> struct HeadLepe {
  C *taps = nullptr, *sums = nullptr;   // [10, padded dim]

  void fill(const AttentionShape& a, const LepeTaps<C>& from, int head, int dim) const {
    for (int which = 0; which < lepe_sums; which++)
      for (int c = 0; c < dim; c++) {
        const int channel = head * a.dim + c;
        taps[which * dim + c] = c >= a.dim ? C(0) : which < lepe_taps ? from.weight[channel * lepe_taps + which] : from.bias[channel];
      }
    std::fill_n(sums, lepe_sums * dim, C(0));
  }

  // row = factor row + bias + the taps over what they see of x from token i.
  void forward(const AttentionShape& a, const PlainRows<C>& x, int i, C factor, C* row) const {
    for (int c = 0; c < x.dim; c += lanes<C>) {
      auto sum = factor * Vector<C>::load(row + c) + Vector<C>::load(taps + lepe_taps * x.dim + c);
      a.each_tap(i / a.window_width, i % a.window_width, [&](int t, int to) { sum += Vector<C>::load(taps + t * x.dim + c) * x.load(i + to, c); });
      Vector<C>::store(row + c, sum);
    }
  }

  // rows = the gradient of the values, and on top of the sums those of this window.
  void backward(const AttentionShape& a, const PlainRows<C>& values, const C* dout, C* rows) const {
    const int dim = values.dim;
    for (int i = 0; i < a.tokens(); i++)
      for (int c = 0; c < dim; c += lanes<C>) {
        const auto g = Vector<C>::load(dout + i * dim + c);
        typename Vector<C>::type sum{};
        const auto add = [&](int which, auto v) { Vector<C>::store(sums + which * dim + c, Vector<C>::load(sums + which * dim + c) + v); };
        a.each_tap(i / a.window_width, i % a.window_width, [&](int t, int to) {
          add(t, g * values.load(i + to, c));
          sum += Vector<C>::load(taps + (lepe_taps - 1 - t) * dim + c) * Vector<C>::load(dout + (i + to) * dim + c);
        });
        add(lepe_taps, g);
        Vector<C>::store(rows + i * dim + c, sum);
      }
  }
};
