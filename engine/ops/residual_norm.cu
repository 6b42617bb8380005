// residual_norm: s = x + drop(alpha * f) and n = norm(s) in one pass over memory. Saves the sum, if it is kept and there is no alpha, or else its
// inputs, and the row is summed again on the way back.
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
    const auto in = team.read(x + at, columns), branch = team.read(f + at, columns);
    const auto total = [&] {
      if (!alpha) return team.write(sum + at, columns, [&](auto j) { return in[j] + k * branch[j]; });
      const auto a = team.read(alpha, columns);
      return team.write(sum + at, columns, [&](auto j) { return in[j] + k * a[j] * branch[j]; });
    }();
    const RowStatistics<C> s = kind.statistics(team, columns, [&](auto j) { return total[j]; });
    const auto gain = team.read(w, columns), shift = team.read(b, columns);
    team.write(out + at, columns, [&](auto j) { return (total[j] - s.mean) * s.scale * gain[j] + shift[j]; });
  }
};

enum class Saved { sum, terms, weighted_terms };   // the last with alpha

// A gradient that nobody wants is written to scratch, so that the loops have no branches.
template <class T, Saved saved> struct Backward {
  const T *x, *f, *dsum, *dnorm;    // x is the sum itself, and f anything, where that was saved
  Compute<T> take_sum;              // 1, or 0 where nobody used the sum; dsum then points to any numbers
  const Compute<T>*alpha, *w;
  T *dx, *df;
  bool add_x, add_f;
  int64_t columns;
  DropFactor keep;
  NormKind<Compute<T>> kind;
  template <class Team, class Sums> HD void operator()(int64_t row, const Team& team, Sums& sums) const {
    using C = Compute<T>;
    constexpr bool weighted = saved == Saved::weighted_terms;
    const int64_t at = row * columns;
    const C k = keep(row), take = take_sum;
    const auto xr = team.read(x + at, columns), fr = saved == Saved::sum ? xr : team.read(f + at, columns);
    const auto g = team.read(dnorm + at, columns), gs = team.read(dsum + at, columns);
    const auto a = team.read(weighted ? alpha : w, columns), gain = team.read(w, columns);
    const auto branch = [&](auto j) { return weighted ? k * a[j] : k; };
    const auto sum = [&](auto j) { return saved == Saved::sum ? xr[j] : xr[j] + branch(j) * fr[j]; };
    const RowStatistics<C> s = kind.statistics(team, columns, sum);
    team.each(columns, [&](auto j) {
      sums.add(0, j, g[j] * (sum(j) - s.mean) * s.scale);   // dw
      sums.add(1, j, g[j]);                                 // db
    });
    kind.backward(team, columns, s, sum, [&](auto j) { return g[j] * gain[j]; }, [&](auto&& slope) {
      team.update(df + at, add_f, dx + at, add_x, columns, [&](auto j) {   // f first: x and f may be the same tensor
        const C ds = slope(j) + take * gs[j];
        if constexpr (weighted) sums.add(2, j, k * ds * fr[j]);   // dalpha
        return Two<C>{branch(j) * ds, ds};
      });
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
    map_rows<T>(x.device(), x.rows(), columns,
             Forward<T>{x.data<T>(), f.data<T>(), a ? a.data<C>() : nullptr, w.data<C>(), b.data<C>(),
                        keep_sum ? sum.data<T>() : out.data<T>(), out.data<T>(), columns, keep, {steps, C(eps)}});
  });
  const Tensor kept = sum && !a ? sum.detached() : Tensor();
  record("residual_norm", sum, out, {x, f, alpha, weight, bias}, [=](const Tensor& dsum, const Tensor& dnorm) {
    check(bool(dnorm), "[residual_norm] the normalised rows were not used: call residual instead");
    const auto target = [&](const Tensor& t) { return t.wants_grad() ? into(t) : Into{Tensor::like(x), 0}; };
    const Into to_f = target(f), to_x = target(x);
    count_kernel({kept ? kept : x, kept ? Tensor() : f, dsum, dnorm, a, w}, {to_x, to_f});
    dispatch(dnorm.dtype(), [&]<class T>() {
      using C = Compute<T>;
      const auto run = [&]<Saved saved>() {
        const Backward<T, saved> back{(kept ? kept : x).data<T>(), f.data<T>(), (dsum ? dsum : dnorm).data<T>(), dnorm.data<T>(), C(dsum ? 1 : 0),
                                      a ? a.data<C>() : nullptr, w.data<C>(), to_x.grad.data<T>(), to_f.grad.data<T>(),
                                      to_x.beta != 0, to_f.beta != 0, columns, keep, {steps, C(eps)}};
        return map_rows_reduce<T, 3>(dnorm.device(), dnorm.rows(), columns, back);
      };
      const Tensor sums = kept ? run.template operator()<Saved::sum>()
                          : a  ? run.template operator()<Saved::weighted_terms>() : run.template operator()<Saved::terms>();
      add_sums<C>(sums, 0, weight);
      add_sums<C>(sums, 1, bias);
      if (a) add_sums<C>(sums, 2, alpha);
    });
  });
  return {sum, out};
}
