// channel_norm: y = w (x - mean) / sqrt(v + eps) + b, mean and v of a channel over all rows of the batch, smoothed over steps: batch norm
// (torch.nn.BatchNorm1d), MABN, PowerNorm and Unified Normalization. One pass over x for its moments, one to apply; backward the same.
#include "engine/map.h"
#include "engine/ops.h"
#include "engine/ops/channel_norm.h"
#include "engine/profile.h"

namespace {

// Column sums of x^2; or, centred, of d^2 and d with d = x minus the first row, so that a large mean does not eat the variance.
template <class T, bool centered> struct Moments {
  const T* x;
  int64_t columns;
  template <class Team> HD void operator()(int64_t row, const Team& team, const ColumnSums<Compute<T>>& sums) const {
    using C = Compute<T>;
    const T *first = x, *in = x + row * columns;
    team.each(columns, [&](int64_t j) {
      const C d = C(in[j]) - (centered ? C(first[j]) : C(0));
      sums.add(0, j, d * d);
      if constexpr (centered) sums.add(1, j, d);
    });
  }
};

template <class T> struct Forward {   // y = (x - mean) by_x + shift
  const T* x;
  T* y;
  const Compute<T>*mean, *by_x, *shift;
  int64_t columns;
  template <class Team> HD void operator()(int64_t row, const Team& team) const {
    using C = Compute<T>;
    const T* in = x + row * columns;
    T* out = y + row * columns;
    const C *m = mean, *a = by_x, *b = shift;
    team.each(columns, [&](int64_t j) { out[j] = T((C(in[j]) - m[j]) * a[j] + b[j]); });
  }
};

template <class T> struct GradientSums {   // column sums of dy (x - mean) and of dy
  const T *x, *dy;
  const Compute<T>* mean;
  int64_t columns;
  template <class Team> HD void operator()(int64_t row, const Team& team, const ColumnSums<Compute<T>>& sums) const {
    using C = Compute<T>;
    const T *in = x + row * columns, *g = dy + row * columns;
    const C* m = mean;
    team.each(columns, [&](int64_t j) {
      sums.add(0, j, C(g[j]) * (C(in[j]) - m[j]));
      sums.add(1, j, C(g[j]));
    });
  }
};

template <class T> struct Backward {   // dx = by_dy dy + by_x (x - mean) + shift
  const T *x, *dy;
  T* dx;
  bool add;
  const Compute<T>*mean, *by_dy, *by_x, *shift;
  int64_t columns;
  template <class Team> HD void operator()(int64_t row, const Team& team) const {
    using C = Compute<T>;
    const T *in = x + row * columns, *g = dy + row * columns;
    T* out = dx + row * columns;
    const C *m = mean, *p = by_dy, *q = by_x, *r = shift;
    const bool keep_old = add;
    team.each(columns, [&](int64_t j) {
      const C old = out[j];
      out[j] = T((keep_old ? old : C(0)) + p[j] * C(g[j]) + q[j] * (C(in[j]) - m[j]) + r[j]);
    });
  }
};

// A step's facts and numbers where x is; a copy in the tape keeps them for backward.
struct Kept {
  Tensor facts, numbers;
  explicit Kept(const Tensor& x)
      : facts(Tensor::empty({channels::facts}, DType::f64, x.device())), numbers(Tensor::empty({channels::rows_of_step, x.dim(-1)}, DType::f64, x.device())) {}
  channels::Step step() const { return {facts.data<double>(), numbers.data<double>(), numbers.dim(1)}; }
};

template <class S> channels::State<S> pointers(const ChannelNormState& s) {
  const auto of = [](const Tensor& t) { return t ? t.data<S>() : nullptr; };
  return {of(s.running_mean), of(s.running_var), of(s.ema_gz), of(s.buffer_x2), of(s.buffer_gz), of(s.iters), of(s.skip_counter)};
}

template <class F> void with_state(const ChannelNormState& s, F&& f) {
  if (s.running_var.dtype() == DType::f64) f.template operator()<double>();
  else f.template operator()<float>();
}

void measure(const Tensor& x, bool centered, const channels::Step& step) {
  const int64_t columns = x.dim(-1);
  count_kernel({x}, {});
  dispatch(x.dtype(), [&]<class T>() {
    const T* in = x.data<T>();
    const Tensor sums = centered ? map_rows_reduce<Compute<T>>(x.device(), x.rows(), columns, 2, Moments<T, true>{in, columns})
                                 : map_rows_reduce<Compute<T>>(x.device(), x.rows(), columns, 1, Moments<T, false>{in, columns});
    map(x.device(), columns, channels::BatchMoments<T>{sums.data<Compute<T>>(), in, centered, double(x.rows()), step});
  });
}

void check_state(const Tensor& x, const ChannelNorm& m, const ChannelNormState& s, bool training) {
  const int64_t columns = x.dim(-1);
  const auto need = [&](const char* name, const Tensor& t, const Shape& shape) {
    check(bool(t) && t.shape() == shape, "[channel_norm] ", name, " must be ", shape, ", given ", t.shape());
    check(t.dtype() == DType::f32 || t.dtype() == DType::f64, "[channel_norm] ", name, " must be f32 or f64, given ", t.dtype());
    check(t.dtype() == s.running_var.dtype(), "[channel_norm] ", name, " is ", t.dtype(), ", running_var ", s.running_var.dtype());
    check(t.device() == x.device(), "[channel_norm] ", name, " is on ", t.device(), ", x on ", x.device());
  };
  need("running_var", s.running_var, {columns});
  if (m.method == BatchNorm::batch) need("running_mean", s.running_mean, {columns});
  if (!training) return;
  need("iters", s.iters, {1});
  if (m.method == BatchNorm::unified) need("skip_counter", s.skip_counter, {1});
  if (m.method == BatchNorm::unified || m.method == BatchNorm::power) need("ema_gz", s.ema_gz, {columns});
  if (m.method == BatchNorm::batch || m.method == BatchNorm::power) return;
  check(m.window_forward > 0 && m.window_backward > 0, "[channel_norm] a window must hold at least one step, given ", m.window_forward,
        " and ", m.window_backward);
  need("buffer_x2", s.buffer_x2, {m.window_forward, columns});
  need("buffer_gz", s.buffer_gz, {m.window_backward, columns});
}

// What to normalise with: constants in evaluation, the batch and its past in training.
void statistics(const Tensor& x, const ChannelNorm& m, const ChannelNormState& s, bool training, const channels::Step& step) {
  const Device device = x.device();
  const bool centered = m.method == BatchNorm::batch;
  if (!training) {
    with_state(s, [&]<class S>() { map(device, step.columns, channels::Constants<S>{pointers<S>(s), step}); });
    return;
  }
  check(!recomputing(), "[channel_norm] in training its statistics change with each forward, so it cannot run twice inside an activation "
        "checkpoint");
  check(x.rows() > (centered ? 1 : 0), "[channel_norm] too few rows for statistics: x is ", x.shape());
  measure(x, centered, step);
  with_state(s, [&]<class S>() {
    map_rows(device, 1, channels::Decide<S>{m, pointers<S>(s), step});
    map(device, step.columns, channels::Forward<S>{m, pointers<S>(s), step, double(x.rows())});
  });
}

void backward(const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& bias, const ChannelNorm& m, const ChannelNormState& s,
              const Kept& kept, const Tensor& forward_table, bool training) {
  const Device device = x.device();
  const channels::Step step = kept.step();
  const int64_t columns = step.columns;
  const double rows = double(x.rows());
  const Tensor mean = forward_table.slice(0, 1), wide_weight = computed(weight, x.dtype());
  const Into target = x.wants_grad() ? into(x) : Into{Tensor(), 0};
  const Tensor table = Tensor::empty({5, columns}, mean.dtype(), device);
  count_kernel({x, dy, mean}, {});
  if (target.grad) count_kernel({x, dy, mean, table}, {target});
  dispatch(x.dtype(), [&]<class T>() {
    using C = Compute<T>;
    const C *gain = wide_weight.data<C>(), *k = table.data<C>();
    const Tensor sums = map_rows_reduce<C>(device, x.rows(), columns, 2, GradientSums<T>{x.data<T>(), dy.data<T>(), mean.data<C>(), columns});
    map_rows(device, 1, channels::BackwardSums<C>{m, step, sums.data<C>(), gain, rows});
    if (training) with_state(s, [&]<class S>() { map(device, columns, channels::SmoothGradient<S>{m, pointers<S>(s), step}); });
    map(device, columns, channels::BackwardTable<C>{m, step, gain, training, rows, table.data<C>()});
    if (target.grad)
      map_rows(device, x.rows(), Backward<T>{x.data<T>(), dy.data<T>(), target.grad.data<T>(), target.beta != 0, mean.data<C>(), k,
                                             k + columns, k + 2 * columns, columns});
    add_sums<C>(table, 3, weight);
    add_sums<C>(table, 4, bias);
  });
}

}  // namespace

Tensor channel_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, const ChannelNorm& method, const ChannelNormState& state,
                    bool training) {
  const OpRange range("channel_norm");
  const int64_t columns = x.dim(-1);
  check(weight.size() == columns && bias.size() == columns, "[channel_norm] x is ", x.shape(), ", weight is ", weight.shape(),
        ", bias is ", bias.shape(), ": last dimensions must agree");
  check_state(x, method, state, training);
  const Kept kept(x);
  statistics(x, method, state, training, kept.step());
  const Tensor wide_weight = computed(weight, x.dtype()), wide_bias = computed(bias, x.dtype());
  const Tensor table = Tensor::empty({3, columns}, wide_weight.dtype(), x.device());
  Tensor y = Tensor::like(x);
  count_kernel({x, table}, {y});
  dispatch(x.dtype(), [&]<class T>() {
    using C = Compute<T>;
    map(x.device(), columns, channels::ForwardTable<C>{method, kept.step(), wide_weight.data<C>(), wide_bias.data<C>(), table.data<C>()});
    const C* k = table.data<C>();
    map_rows(x.device(), x.rows(), Forward<T>{x.data<T>(), y.data<T>(), k, k + columns, k + 2 * columns, columns});
  });
  record("channel_norm", y, {x, weight, bias},
         [=](const Tensor& dy) { backward(dy, x, weight, bias, method, state, kept, table, training); });
  return y;
}
