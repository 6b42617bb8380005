// channel_norm: y = w (x - mean) / sqrt(v + eps) + b, mean and v of a channel over all rows of the batch, smoothed over steps: batch norm
// (torch.nn.BatchNorm1d), MABN, PowerNorm and Unified Normalization. One pass over x for its moments, one to apply; backward the same.
#include "engine/map.h"
#include "engine/ops.h"
#include "engine/ops/channel_norm.h"
#include "engine/profile.h"

namespace {

using channels::Numbers;
using channels::Step;
constexpr Device cpu{Device::cpu};

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

// Rows of numbers a channel, [k, C], where x is and in the type in which an op on x computes.
Tensor per_channel(const Tensor& x, std::initializer_list<Numbers> rows) {
  Numbers all;
  for (const Numbers& row : rows) all.insert(all.end(), row.begin(), row.end());
  return Tensor::from({int64_t(rows.size()), x.dim(-1)}, all, x.dtype() == DType::f64 ? DType::f64 : DType::f32, x.device());
}

// Row k of column sums or of numbers a channel, on the host.
Numbers row_of(const Tensor& table, int64_t k) { return table.slice(k, 1).to(cpu).values(); }

// Mean and second moment of the batch, a channel: about the mean for `batch`, else about 0.
std::pair<Numbers, Numbers> moments(const Tensor& x, bool centered) {
  const int64_t columns = x.dim(-1);
  const double rows = double(x.rows());
  Tensor sums;
  count_kernel({x}, {});
  dispatch(x.dtype(), [&]<class T>() {
    sums = centered ? map_rows_reduce<Compute<T>>(x.device(), x.rows(), columns, 2, Moments<T, true>{x.data<T>(), columns})
                    : map_rows_reduce<Compute<T>>(x.device(), x.rows(), columns, 1, Moments<T, false>{x.data<T>(), columns});
  });
  Numbers mean(columns, 0.0), second = row_of(sums, 0);
  for (double& v : second) v /= rows;
  if (!centered) return {mean, second};
  mean = row_of(sums, 1);
  const Numbers first = row_of(x.view({x.rows(), columns}), 0);
  for (int64_t c = 0; c < columns; c++) {
    const double d = mean[c] / rows;
    const double variance = second[c] - d * d;
    second[c] = variance < 0 ? 0 : variance;   // NaN stays
    mean[c] = first[c] + d;
  }
  return {mean, second};
}

void check_state(const ChannelNorm& m, const ChannelNormState& s, int64_t columns, bool training) {
  const auto need = [&](const char* name, const Tensor& t, const Shape& shape) {
    check(bool(t) && t.shape() == shape, "[channel_norm] ", name, " must be ", shape, ", given ", t.shape());
    check(t.dtype() == DType::f32 || t.dtype() == DType::f64, "[channel_norm] ", name, " must be f32 or f64, given ", t.dtype());
    check(t.device() == cpu, "[channel_norm] ", name, " must be on the host");
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
Step statistics(const Tensor& x, const ChannelNorm& m, const ChannelNormState& s, bool training) {
  const int64_t columns = x.dim(-1);
  const bool centered = m.method == BatchNorm::batch;
  if (!training)
    return {.mean = centered ? s.running_mean.values() : Numbers(columns, 0.0), .used = s.running_var.values(),
            .correction = Numbers(columns, 1.0)};
  check(!recomputing(), "[channel_norm] in training its statistics change with each forward, so it cannot run twice inside an activation "
        "checkpoint");
  check(x.rows() > (centered ? 1 : 0), "[channel_norm] too few rows for statistics: x is ", x.shape());
  const auto [mean, second] = moments(x, centered);
  return channels::forward(m, s, mean, second, x.rows());
}

// dx = (G - psi_mean - psi z) / sqrt(v + eps) with G = w r dy; psi_mean = mean(G) for `batch`, else 0; v of PN is the batch's own here.
void backward(const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& bias, const ChannelNorm& m,
              const ChannelNormState& s, const Step& step, bool training) {
  const int64_t columns = x.dim(-1);
  const double rows = double(x.rows());
  const Numbers gain = weight.to(cpu).values();
  const Tensor mean = per_channel(x, {step.mean});
  Tensor sums;
  count_kernel({x, dy, mean}, {});
  dispatch(x.dtype(), [&]<class T>() {
    using C = Compute<T>;
    sums = map_rows_reduce<C>(x.device(), x.rows(), columns, 2, GradientSums<T>{x.data<T>(), dy.data<T>(), mean.data<C>(), columns});
  });
  const Numbers along = row_of(sums, 0), total = row_of(sums, 1);
  Numbers dweight(columns), h(columns), inverse(columns);
  for (int64_t c = 0; c < columns; c++) {
    inverse[c] = 1 / std::sqrt(step.used[c] + m.eps);
    dweight[c] = step.correction[c] * inverse[c] * along[c];
    h[c] = gain[c] * dweight[c] / rows;
  }
  const Numbers psi = training ? channels::smoothed_gradient(m, s, step, h) : Numbers(columns, 0.0);
  const bool by_batch = training && m.method == BatchNorm::power, centers = training && m.method == BatchNorm::batch;
  Numbers by_dy(columns), by_x(columns), shift(columns);
  for (int64_t c = 0; c < columns; c++) {
    const double out = by_batch ? 1 / std::sqrt(step.second[c] + m.eps) : inverse[c];
    by_dy[c] = gain[c] * step.correction[c] * out;
    by_x[c] = -psi[c] * inverse[c] * out;
    shift[c] = centers ? -gain[c] * total[c] / rows * out : 0;
  }
  const Into target = x.wants_grad() ? into(x) : Into{Tensor(), 0};
  const Tensor table = per_channel(x, {by_dy, by_x, shift, dweight, total});
  if (target.grad) count_kernel({x, dy, mean, table}, {target});
  dispatch(x.dtype(), [&]<class T>() {
    using C = Compute<T>;
    const C* k = table.data<C>();
    if (target.grad)
      map_rows(x.device(), x.rows(), Backward<T>{x.data<T>(), dy.data<T>(), target.grad.data<T>(), target.beta != 0, mean.data<C>(), k,
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
  check_state(method, state, columns, training);
  const Step step = statistics(x, method, state, training);
  const Numbers w = weight.to(cpu).values();
  // MABN corrects what it gives; UN's correction is of the gradient only.
  const bool corrects = method.method == BatchNorm::moving_average;
  Numbers by_x(columns);
  for (int64_t c = 0; c < columns; c++) by_x[c] = w[c] * (corrects ? step.correction[c] : 1) / std::sqrt(step.used[c] + method.eps);
  const Tensor table = per_channel(x, {step.mean, by_x, bias.to(cpu).values()});
  Tensor y = Tensor::like(x);
  count_kernel({x, table}, {y});
  dispatch(x.dtype(), [&]<class T>() {
    const Compute<T>* k = table.data<Compute<T>>();
    map_rows(x.device(), x.rows(), Forward<T>{x.data<T>(), y.data<T>(), k, k + columns, k + 2 * columns, columns});
  });
  record("channel_norm", y, {x, weight, bias},
         [=](const Tensor& dy) { backward(dy, x, weight, bias, method, state, step, training); });
  return y;
}
