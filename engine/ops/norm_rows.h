// norm_rows.h: what center_norm, layer_norm, rms_norm and residual_norm share: y = w (x - mean) scale + b for one row, and the way back.
#pragma once
#include "engine/map.h"

// What a norm does to a row. LayerNorm does both; CenterNorm does not divide, but scales by D/(D-1); RMSNorm does not centre.
struct RowSteps {
  bool centers, divides;
};
constexpr RowSteps layer_steps{true, true}, center_steps{true, false}, rms_steps{false, true};

// scale = 1/sqrt(second moment about the mean + eps), so gradients flow through it too; or D/(D-1), a constant.
template <class C> struct RowStatistics {
  C mean, scale;
};

template <class C> struct NormKind {
  RowSteps steps;
  C eps;

  template <class Team, class X> HD RowStatistics<C> statistics(const Team& team, int64_t n, X&& x) const {
    const C mean = steps.centers ? team.template sum<C>(n, [&](auto j) { return x(j); }) / C(n) : C(0);
    if (!steps.divides) return {mean, C(n) / C(n - 1)};
    const C second = team.template sum<C>(n, [&](auto j) { return (x(j) - mean) * (x(j) - mean); }) / C(n);
    return {mean, C(1) / C(sqrt(second + eps))};
  }

  // dx_j = scale (h_j - mean(h) - x^_j mean(h x^)) with h = w dy and x^ = (x - mean) scale: the middle term for a norm that centres,
  // the last for one that divides. store(dx) is called once, with the function of j that gives dx_j.
  template <class Team, class X, class H, class Store>
  HD void backward(const Team& team, int64_t n, RowStatistics<C> s, X&& x, H&& h, Store&& store) const {
    const C mean_h = steps.centers ? team.template sum<C>(n, [&](auto j) { return h(j); }) / C(n) : C(0);
    if (!steps.divides) return store([&](auto j) { return s.scale * (h(j) - mean_h); });
    const C along = team.template sum<C>(n, [&](auto j) { return h(j) * (x(j) - s.mean); }) * s.scale / C(n);
    store([&](auto j) { return s.scale * (h(j) - mean_h - (x(j) - s.mean) * s.scale * along); });
  }
};

// The bias in the type in which an op on x computes; one that is left out is 0.
inline Tensor row_bias(const Tensor& bias, const Tensor& x) {
  if (bias) return computed(bias, x.dtype());
  return Tensor::zeros({x.dim(-1)}, x.dtype() == DType::f64 ? DType::f64 : DType::f32, x.device());
}

inline void check_row_norm(const char* op, const Tensor& x, const Tensor& weight, const Tensor& bias, RowSteps steps) {
  const int64_t columns = x.dim(-1);
  check(weight.size() == columns && (!bias || bias.size() == columns), "[", op, "] x is ", x.shape(), ", weight is ", weight.shape(),
        ", bias is ", bias.shape(), ": last dimensions must agree");
  check(steps.divides || columns > 1, "[", op, "] at least 2 channels are needed, given ", columns);
}

template <class T> struct NormForward {
  const T* x;
  const Compute<T>*w, *b;
  T* y;
  int64_t columns;
  NormKind<Compute<T>> kind;
  template <class Team> HD void operator()(int64_t row, const Team& team) const {
    using C = Compute<T>;
    const auto in = team.read(x + row * columns, columns);
    const RowStatistics<C> s = kind.statistics(team, columns, [&](auto j) { return in[j]; });
    const auto gain = team.read(w, columns), shift = team.read(b, columns);
    team.write(y + row * columns, columns, [&](auto j) { return (in[j] - s.mean) * s.scale * gain[j] + shift[j]; });
  }
};

template <class T> struct NormBackward {
  const T *x, *dy;
  const Compute<T>* w;
  T* dx;   // null if x wants no gradient
  bool add;
  int64_t columns;
  NormKind<Compute<T>> kind;
  template <class Team, class Sums> HD void operator()(int64_t row, const Team& team, Sums& sums) const {
    using C = Compute<T>;
    const auto in = team.read(x + row * columns, columns), g = team.read(dy + row * columns, columns);
    const RowStatistics<C> s = kind.statistics(team, columns, [&](auto j) { return in[j]; });
    team.each(columns, [&](auto j) {
      sums.add(0, j, g[j] * (in[j] - s.mean) * s.scale);   // dw
      sums.add(1, j, g[j]);                                // db
    });
    if (!dx) return;
    const auto gain = team.read(w, columns);
    kind.backward(team, columns, s, [&](auto j) { return in[j]; }, [&](auto j) { return g[j] * gain[j]; },
                  [&](auto&& slope) { team.update(dx + row * columns, columns, add, slope); });
  }
};

// The op itself, for all three norms.
inline Tensor row_norm(const char* op, const Tensor& x, const Tensor& weight, const Tensor& bias, RowSteps steps, double eps) {
  check_row_norm(op, x, weight, bias, steps);
  const int64_t columns = x.dim(-1);
  Tensor y = Tensor::like(x);
  const Tensor w = computed(weight, x.dtype()), b = row_bias(bias, x);
  count_kernel({x, w, b}, {y});
  dispatch(x.dtype(), [&]<class T>() {
    using C = Compute<T>;
    map_rows<T>(x.device(), x.rows(), columns, NormForward<T>{x.data<T>(), w.data<C>(), b.data<C>(), y.data<T>(), columns, {steps, C(eps)}});
  });
  record(op, y, {x, weight, bias}, [=](const Tensor& dy) {
    const Into target = x.wants_grad() ? into(x) : Into{Tensor(), 0};
    count_kernel({x, dy, w}, {target});
    dispatch(x.dtype(), [&]<class T>() {
      using C = Compute<T>;
      const NormBackward<T> f{x.data<T>(), dy.data<T>(), w.data<C>(), target.grad ? target.grad.data<T>() : nullptr, target.beta != 0,
                              columns, {steps, C(eps)}};
      const Tensor sums = map_rows_reduce<T, 2>(x.device(), x.rows(), columns, f);
      add_sums<C>(sums, 0, weight);
      add_sums<C>(sums, 1, bias);
    });
  });
  return y;
}
