// residual: y = skip x + drop(alpha * f), alpha [C] a weight a channel (LipsFormer's weighted residual), [1] for all of them (ReZero), or
// empty for the plain sum. skip < 1 makes it convex, skip > 1 is DeepNorm's.
#include "engine/map.h"
#include "engine/ops.h"
#include "engine/ops/drop_path.h"
#include "engine/profile.h"

namespace {

template <class T> struct Forward {
  const T *x, *f;
  const Compute<T>* alpha;   // null: 1
  T* y;
  int64_t columns;
  Compute<T> skip;
  DropFactor keep;
  template <class Team> HD void operator()(int64_t row, const Team& team) const {
    using C = Compute<T>;
    const C k = keep(row), s = skip;
    T* to = y + row * columns;
    const auto in = team.read(x + row * columns, columns);
    const auto branch = team.read(f + row * columns, columns);
    if (alpha) {
      const auto a = team.read(alpha, columns);
      team.write(to, columns, [&](auto j) { return s * in[j] + k * a[j] * branch[j]; });
    } else {
      team.write(to, columns, [&](auto j) { return s * in[j] + k * branch[j]; });
    }
  }
};

template <class T, bool weighted> struct Backward {   // df = k alpha dy, dalpha = sum k dy f
  const T *f, *dy;
  const Compute<T>* alpha;
  T* df;
  bool add;
  int64_t columns;
  DropFactor keep;
  template <class Team, class Sums> HD void operator()(int64_t row, const Team& team, Sums& sums) const {
    using C = Compute<T>;
    const C k = keep(row);
    T* to = df + row * columns;
    const auto g = team.read(dy + row * columns, columns);
    if constexpr (weighted) {
      const auto branch = team.read(f + row * columns, columns);
      const auto a = team.read(alpha, columns);
      team.update(to, columns, add, [&](auto j) {
        const C kg = k * g[j];
        sums.add(0, j, kg * branch[j]);
        return a[j] * kg;
      });
    } else {
      team.update(to, columns, add, [&](auto j) { return k * g[j]; });
    }
  }
};

template <class C> struct Scaled {   // dx = skip dy
  C factor;
  HD C operator()(C dy) const { return factor * dy; }
};

template <class C> struct Spread {   // one number for every channel
  const C* value;
  C* all;
  HD void operator()(int64_t i) const { all[i] = *value; }
};

template <class C> struct SumOfChannels {
  const C* channels;
  C* sum;
  int64_t n;
  HD void operator()(int64_t) const {
    C s = 0;
    for (int64_t i = 0; i < n; i++) s += channels[i];
    *sum = s;
  }
};

// alpha as a number a channel.
Tensor by_channel(const Tensor& alpha, int64_t columns) {
  if (!alpha || alpha.size() == columns) return alpha;
  const Tensor all = Tensor::empty({columns}, alpha.dtype(), alpha.device());
  dispatch(alpha.dtype(), [&]<class C>() { map(alpha.device(), columns, Spread<C>{alpha.data<C>(), all.data<C>()}); });
  return all;
}

// Adds the channels' sums [1, C] to the gradient of alpha, whichever its shape.
template <class C> void add_alpha_gradient(const Tensor& sums, const Tensor& alpha) {
  if (alpha.size() == sums.dim(1)) return add_sums<C>(sums, 0, alpha);
  const Tensor sum = Tensor::empty({1, 1}, sums.dtype(), sums.device());
  map(sums.device(), 1, SumOfChannels<C>{sums.data<C>(), sum.data<C>(), sums.dim(1)});
  add_sums<C>(sum, 0, alpha);
}

}  // namespace

Tensor residual(const Tensor& x, const Tensor& f, const Tensor& alpha, const DropPath& drop, double skip) {
  const OpRange range("residual");
  const int64_t columns = x.dim(-1);
  check(f.size() == x.size() && f.dtype() == x.dtype(), "[residual] x is ", x.shape(), ", branch is ", f.shape(), ": shapes must agree");
  check(!alpha || alpha.size() == columns || alpha.size() == 1, "[residual] alpha is ", alpha.shape(), ", expected [", columns, "] or [1]");
  Tensor y = Tensor::like(x);
  const Tensor a = by_channel(computed(alpha, x.dtype()), columns);
  count_kernel({x, f, a}, {y});
  const DropFactor keep = drop_factor(drop, x);
  dispatch(x.dtype(), [&]<class T>() {
    using C = Compute<T>;
    map_cells<T>(x.device(), x.rows(), columns, Forward<T>{x.data<T>(), f.data<T>(), a ? a.data<C>() : nullptr, y.data<T>(), columns, C(skip), keep});
  });
  record("residual", y, {x, f, alpha}, [=](const Tensor& dy) {
    const Into target = f.wants_grad() ? into(f) : Into{Tensor::like(f), 0};   // scratch where nobody wants it
    count_kernel({a ? f : Tensor(), dy, a}, {target});
    dispatch(dy.dtype(), [&]<class T>() {
      using C = Compute<T>;
      const auto run = [&]<bool weighted>() {
        const Backward<T, weighted> back{f.data<T>(), dy.data<T>(), weighted ? a.data<C>() : nullptr, target.grad.data<T>(),
                                         target.beta != 0, columns, keep};
        return map_cells_reduce<T, 1>(dy.device(), dy.rows(), columns, back);
      };
      if (a && alpha.wants_grad()) add_alpha_gradient<C>(run.template operator()<true>(), alpha);
      else if (a) run.template operator()<true>();
      else run.template operator()<false>();
    });
    if (!x.wants_grad()) return;
    if (skip == 1) return pass_on(dy, x);
    auto [dx, beta] = into(x);
    count_kernel({dy}, {Into{dx, beta}});
    dispatch(dy.dtype(), [&]<class T>() { 
      map_values(dy.device(), dy.size(), dx.data<T>(), beta != 0, Scaled<Compute<T>>{Compute<T>(skip)}, dy.data<T>());
    });
  });
  return y;
}
