// residual_norm: s = x + drop(alpha * f) and n = norm(s) in one pass over memory. Saves only its inputs: the row is summed again on the way back.
#include "engine/ops.h"
#include "engine/ops/drop_path.h"
#include "engine/ops/norm_rows.h"
#include "engine/profile.h"

namespace {

template <class T> struct Forward {
  const T *x, *f;
  const Compute<T>*alpha, *w, *b;   // alpha null: 1
  T *sum, *out;                     // sum may be out: then the row is normalised where it stands
  int64_t columns;
  DropFactor keep;
  NormKind<Compute<T>> kind;
  template <class Team> HD void operator()(int64_t row, const Team& team) const {
    using C = Compute<T>;
    const int64_t at = row * columns;
    const C k = keep(row);
    if (alpha)
      team.each(columns, [&](int64_t j) { sum[at + j] = T(C(x[at + j]) + k * alpha[j] * C(f[at + j])); });
    else
      team.each(columns, [&](int64_t j) { sum[at + j] = T(C(x[at + j]) + k * C(f[at + j])); });
    const auto s = kind.statistics(team, columns, [&](int64_t j) { return C(sum[at + j]); });
    team.each(columns, [&](int64_t j) { out[at + j] = T((C(sum[at + j]) - s.mean) * s.scale * w[j] + b[j]); });
  }
};

// `weighted`: alpha is there. A gradient that nobody wants is written to scratch, so that the loops have no branches.
template <class T, bool weighted> struct Backward {
  const T *x, *f, *dsum, *dnorm;
  Compute<T> take_sum;              // 1, or 0 where nobody used the sum; dsum then points to any numbers
  const Compute<T>*alpha, *w;
  T *dx, *df;
  bool add_x, add_f;
  int64_t columns;
  DropFactor keep;
  NormKind<Compute<T>> kind;
  template <class Team> HD void operator()(int64_t row, const Team& team, const ColumnSums<Compute<T>>& sums) const {
    using C = Compute<T>;
    const int64_t at = row * columns;
    const T *xr = x + at, *fr = f + at, *g = dnorm + at, *gs = dsum + at;
    T *to_x = dx + at, *to_f = df + at;
    const C *a = alpha, *gain = w;
    const C k = keep(row), take = take_sum;
    const auto branch = [&](int64_t j) { return weighted ? k * a[j] : k; };
    const auto sum = [&](int64_t j) { return C(xr[j]) + branch(j) * C(fr[j]); };
    const auto s = kind.statistics(team, columns, sum);
    team.each(columns, [&](int64_t j) {
      sums.add(0, j, C(g[j]) * (sum(j) - s.mean) * s.scale);   // dw
      sums.add(1, j, C(g[j]));                                 // db
    });
    const bool keep_x = add_x, keep_f = add_f;
    kind.backward(team, columns, s, sum, [&](int64_t j) { return C(g[j]) * gain[j]; }, [&](int64_t j, C v) {
      const C ds = v + take * C(gs[j]), old_f = to_f[j];
      if constexpr (weighted) sums.add(2, j, k * ds * C(fr[j]));   // dalpha
      to_f[j] = T((keep_f ? old_f : C(0)) + branch(j) * ds);
      const C old_x = to_x[j];   // read only now: x and f may be the same tensor
      to_x[j] = T((keep_x ? old_x : C(0)) + ds);
    });
  }
};

RowSteps steps_of(RowNorm norm) {
  switch (norm) {
    case RowNorm::layer: return layer_steps;
    case RowNorm::center: return center_steps;
    case RowNorm::rms: return rms_steps;
  }
  return layer_steps;
}

}  // namespace

Sum residual_norm(const Tensor& x, const Tensor& f, const Tensor& alpha, const DropPath& drop, RowNorm norm, const Tensor& weight,
                  const Tensor& bias, double eps, bool keep_sum) {
  const OpRange range("residual_norm");
  const int64_t columns = x.dim(-1);
  check(f.size() == x.size() && f.dtype() == x.dtype(), "[residual_norm] x is ", x.shape(), ", branch is ", f.shape(), ": shapes must agree");
  check(!alpha || alpha.size() == columns, "[residual_norm] alpha is ", alpha.shape(), ", expected [", columns, "]");
  const RowSteps steps = steps_of(norm);
  check_row_norm("residual_norm", x, weight, bias, steps);
  Tensor out = Tensor::like(x), sum = keep_sum ? Tensor::like(x) : Tensor();
  const Tensor a = computed(alpha, x.dtype()), w = computed(weight, x.dtype()), b = row_bias(bias, x);
  count_kernel({x, f, a, w, b}, {sum, out});
  const DropFactor keep = drop_factor(drop, x);
  dispatch(x.dtype(), [&]<class T>() {
    using C = Compute<T>;
    map_rows(x.device(), x.rows(),
             Forward<T>{x.data<T>(), f.data<T>(), a ? a.data<C>() : nullptr, w.data<C>(), b.data<C>(),
                        keep_sum ? sum.data<T>() : out.data<T>(), out.data<T>(), columns, keep, {steps, C(eps)}});
  });
  record("residual_norm", sum, out, {x, f, alpha, weight, bias}, [=](const Tensor& dsum, const Tensor& dnorm) {
    check(bool(dnorm), "[residual_norm] the normalised rows were not used: call residual instead");
    const auto target = [&](const Tensor& t) { return t.wants_grad() ? into(t) : Into{Tensor::like(x), 0}; };
    const Into to_f = target(f), to_x = target(x);
    count_kernel({x, f, dsum, dnorm, a, w}, {to_x, to_f});
    dispatch(dnorm.dtype(), [&]<class T>() {
      using C = Compute<T>;
      const auto run = [&]<bool weighted>() {
        const Backward<T, weighted> back{x.data<T>(), f.data<T>(), (dsum ? dsum : dnorm).data<T>(), dnorm.data<T>(), C(dsum ? 1 : 0),
                                         weighted ? a.data<C>() : nullptr, w.data<C>(), to_x.grad.data<T>(), to_f.grad.data<T>(),
                                         to_x.beta != 0, to_f.beta != 0, columns, keep, {steps, C(eps)}};
        return map_rows_reduce<C>(dnorm.device(), dnorm.rows(), columns, weighted ? 3 : 2, back);
      };
      const Tensor sums = a ? run.template operator()<true>() : run.template operator()<false>();
      add_sums<C>(sums, 0, weight);
      add_sums<C>(sums, 1, bias);
      if (a) add_sums<C>(sums, 2, alpha);
    });
  });
  return {sum, out};
}
