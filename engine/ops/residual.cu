// residual: y = skip x + drop(alpha * f), alpha [C] a weight a channel (LipsFormer's weighted residual), [1] for all of them (ReZero), or
// empty for the plain sum. skip < 1 makes it convex, skip > 1 is DeepNorm's.
#include "engine/map.h"
#include "engine/ops.h"
#include "engine/ops/drop_path.h"
#include "engine/ops/residual.h"
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

}  // namespace

Tensor residual(const Tensor& x, const Tensor& f, const Tensor& alpha, const DropPath& drop, double skip) {
  const OpRange range("residual");
  const int64_t columns = x.dim(-1);
  check(f.size() == x.size() && f.dtype() == x.dtype(), "[residual] x is ", x.shape(), ", branch is ", f.shape(), ": shapes must agree");
  residual_sum::check_alpha("residual", alpha, columns);
  Tensor y = Tensor::like(x);
  const Tensor a = residual_sum::by_channel(computed(alpha, x.dtype()), columns);
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
      if (a && alpha.wants_grad()) residual_sum::add_alpha_gradient<C>(run.template operator()<true>(), alpha);
      else if (a) run.template operator()<true>();
      else run.template operator()<false>();
    });
    residual_sum::pass_on_skipped(dy, x, skip);
  });
  return y;
}
