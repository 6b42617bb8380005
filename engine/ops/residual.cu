// residual: y = x + drop(alpha * f), alpha [C] a weight a channel (LipsFormer's weighted residual) or empty for the plain sum.
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
  DropFactor keep;
  template <class Team> HD void operator()(int64_t row, const Team& team) const {
    using C = Compute<T>;
    const int64_t at = row * columns;
    const C k = keep(row);
    if (alpha)
      team.each(columns, [&](int64_t j) { y[at + j] = T(C(x[at + j]) + k * alpha[j] * C(f[at + j])); });
    else
      team.each(columns, [&](int64_t j) { y[at + j] = T(C(x[at + j]) + k * C(f[at + j])); });
  }
};

template <class T, bool weighted> struct Backward {   // df = k alpha dy, dalpha = sum k dy f
  const T *f, *dy;
  const Compute<T>* alpha;
  T* df;
  bool add;
  int64_t columns;
  DropFactor keep;
  template <class Team> HD void operator()(int64_t row, const Team& team, const ColumnSums<Compute<T>>& sums) const {
    using C = Compute<T>;
    const T *fr = f + row * columns, *g = dy + row * columns;
    const C* a = alpha;
    T* to = df + row * columns;
    const C k = keep(row);
    const bool keep_old = add;
    team.each(columns, [&](int64_t j) {
      const C kg = k * C(g[j]), old = to[j];
      if constexpr (weighted) sums.add(0, j, kg * C(fr[j]));
      to[j] = T((keep_old ? old : C(0)) + (weighted ? a[j] * kg : kg));
    });
  }
};

}  // namespace

Tensor residual(const Tensor& x, const Tensor& f, const Tensor& alpha, const DropPath& drop) {
  const OpRange range("residual");
  const int64_t columns = x.dim(-1);
  check(f.size() == x.size() && f.dtype() == x.dtype(), "[residual] x is ", x.shape(), ", branch is ", f.shape(), ": shapes must agree");
  check(!alpha || alpha.size() == columns, "[residual] alpha is ", alpha.shape(), ", expected [", columns, "]");
  Tensor y = Tensor::like(x);
  const Tensor a = computed(alpha, x.dtype());
  const DropFactor keep = drop_factor(drop, x);
  dispatch(x.dtype(), [&]<class T>() {
    using C = Compute<T>;
    map_rows(x.device(), x.rows(), Forward<T>{x.data<T>(), f.data<T>(), a ? a.data<C>() : nullptr, y.data<T>(), columns, keep});
  });
  record("residual", y, {x, f, alpha}, [=](const Tensor& dy) {
    const Into target = f.wants_grad() ? into(f) : Into{Tensor::like(f), 0};   // scratch where nobody wants it
    dispatch(dy.dtype(), [&]<class T>() {
      using C = Compute<T>;
      const auto run = [&]<bool weighted>() {
        const Backward<T, weighted> back{f.data<T>(), dy.data<T>(), weighted ? a.data<C>() : nullptr, target.grad.data<T>(),
                                         target.beta != 0, columns, keep};
        return map_rows_reduce<C>(dy.device(), dy.rows(), columns, 1, back);
      };
      if (a) add_sums<C>(run.template operator()<true>(), 0, alpha);
      else run.template operator()<false>();
    });
    pass_on(dy, x);
  });
  return y;
}
