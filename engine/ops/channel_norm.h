// channel_norm.h: what BN, MABN, PN and UN make of the statistics of a batch: the small launches between the passes over x. All of it in f64; S is
// the type of the state, C that in which an op on x computes.
#pragma once
#include "engine/map.h"
#include "engine/ops.h"

namespace channels {

template <class S> struct State {
  S *running_mean, *running_var, *ema_gz, *buffer_x2, *buffer_gz, *iters, *skip_counter;
};

// What a step is, as forward saw it. z = (x - mean) / sqrt(used + eps).
enum Fact {
  fact_t,                 // training forwards so far, this one included
  fact_finite,            // otherwise the running statistics are left as they were
  fact_outlier,           // unified: its second moment stays out of the window
  fact_gradient_finite,   // of backward
  facts
};
enum Row {
  row_mean,         // 0 for all but `batch`
  row_second,       // second moment of this batch about the mean
  row_used,         // the one that normalises
  row_correction,   // r: sqrt(used + eps) / sqrt(running_var + eps), clipped; 1 while young
  row_dweight, row_along, row_total, row_psi,   // of backward: dL/dweight, h = mean(G z), the sum of dy, and what of G along z is taken away
  rows_of_step
};
struct Step {
  double *facts, *numbers;   // [facts], [rows_of_step, columns]
  int64_t columns;
  HD double& at(Row row, int64_t c) const { return numbers[row * columns + c]; }
  HD int64_t t() const { return int64_t(facts[fact_t]); }
  HD bool is(Fact fact) const { return facts[fact] != 0; }
};

HD bool finite(double x) { return x - x == 0; }
HD double smoothed(double average, double alpha, double now) { return alpha * average + (1 - alpha) * now; }
HD bool young(const ChannelNorm& m, int64_t t, int window) { return t <= window || t < m.warmup; }

template <class S> HD double arithmetic_mean(const S* window, int64_t length, int64_t columns, int64_t c) {
  double sum = 0;
  for (int64_t i = 0; i < length; i++) sum += double(window[i * columns + c]) / double(length);
  return sum;
}

// exp of the mean logarithm: 0 as soon as one number is 0.
template <class S> HD double geometric_mean(const S* window, int64_t length, int64_t columns, int64_t c) {
  double sum = 0;
  for (int64_t i = 0; i < length; i++) sum += log(double(window[i * columns + c])) / double(length);
  return exp(sum);
}

// Mean and second moment of the batch, a channel: about the mean for `batch`, else about 0. sums: of (x - first)^2 and x - first, or of x^2.
template <class T> struct BatchMoments {
  const Compute<T>* sums;
  const T* first;
  bool centered;
  double rows;
  Step step;
  HD void operator()(int64_t c) const {
    const double squares = double(sums[c]) / rows;
    if (!centered) {
      step.at(row_mean, c) = 0, step.at(row_second, c) = squares;
      return;
    }
    const double d = double(sums[step.columns + c]) / rows, variance = squares - d * d;
    step.at(row_mean, c) = double(Compute<T>(first[c])) + d;
    step.at(row_second, c) = variance < 0 ? 0 : variance;   // NaN stays
  }
};

// Unified: AM - GM > M V in any channel. V is of the roots of the window before this step:
// `pooled`, the released code: one sample variance over all channels and steps, so it holds the spread between channels too;
// `per_channel`, the paper's letter: the population variance of the channel's own window, for which the paper proves its inequality
// (equality at M = 2, so it fires in about every step).
template <class S> struct Decide {
  ChannelNorm m;
  State<S> s;
  Step step;

  HD double root(int64_t i) const { return sqrt(double(s.buffer_x2[i])); }
  HD double own_variance(int64_t c) const {
    const int64_t window = m.window_forward, n = step.columns;
    double mean = 0, squares = 0;
    for (int64_t i = 0; i < window; i++) mean += root(i * n + c) / double(window);
    for (int64_t i = 0; i < window; i++) squares += (root(i * n + c) - mean) * (root(i * n + c) - mean);
    return squares / double(window);
  }
  template <class Team> HD double pooled_variance(const Team& team) const {
    const int64_t count = m.window_forward * step.columns;
    const double mean = team.template sum<double>(count, [&](int64_t i) { return root(i); }) / double(count);
    const double squares = team.template sum<double>(count, [&](int64_t i) { return (root(i) - mean) * (root(i) - mean); });
    return count > 1 ? squares / double(count - 1) : 0;
  }
  // AM - GM of the window with this step in it.
  HD double gap(int64_t c, int64_t t) const {
    const int64_t window = m.window_forward, n = step.columns;
    double arithmetic = 0, logarithm = 0;
    for (int64_t i = 0; i < window; i++) {
      const double v = i == t % window ? double(S(step.at(row_second, c))) : double(s.buffer_x2[i * n + c]);
      arithmetic += v / double(window);
      logarithm += log(v) / double(window);
    }
    return arithmetic - exp(logarithm);
  }

  template <class Team> HD void operator()(int64_t, const Team& team) const {
    const int64_t t = int64_t(*s.iters) + 1, n = step.columns;
    const double spoilt = team.template sum<double>(n, [&](int64_t c) { return finite(step.at(row_mean, c)) && finite(step.at(row_second, c)) ? 0.0 : 1.0; });
    const bool unified = m.method == BatchNorm::unified;
    bool outlier = unified && spoilt > 0;
    if (unified && !outlier && m.filter != ChannelNorm::no_filter && m.window_forward > 1 && t >= m.warmup) {
      const double pooled = pooled_variance(team), window = m.window_forward;
      const bool own = m.filter == ChannelNorm::per_channel;
      outlier = team.template sum<double>(n, [&](int64_t c) { return gap(c, t) > window * (own ? own_variance(c) : pooled) ? 1.0 : 0.0; }) > 0;
    }
    if (!team.leads()) return;
    *s.iters = S(t);
    if (outlier) *s.skip_counter = S(double(*s.skip_counter) + 1);
    step.facts[fact_t] = double(t), step.facts[fact_finite] = spoilt == 0, step.facts[fact_outlier] = outlier;
  }
};

// What to normalise with in training. Brings the state of a channel up to date.
template <class S> struct Forward {
  ChannelNorm m;
  State<S> s;
  Step step;
  double rows;

  HD bool skips() const { return step.is(fact_outlier) || (m.method == BatchNorm::unified && m.window_forward <= 1); }
  HD double clipped_correction(double used, double running) const {
    if (skips() || !step.is(fact_finite) || step.t() <= (m.warmup > 1000 ? m.warmup : 1000)) return 1;
    const double r = sqrt((used + m.eps) / (running + m.eps));
    return r < 0.2 ? 0.2 : r > 5 ? 5 : r;
  }
  HD void remember(S* average, int64_t c, double now) const { average[c] = S(smoothed(double(average[c]), m.alpha, now)); }

  HD void operator()(int64_t c) const {
    const int64_t t = step.t(), n = step.columns;
    const bool is_finite = step.is(fact_finite);
    const double second = step.at(row_second, c), running = double(s.running_var[c]);
    double used = second, correction = 1;
    if (m.method == BatchNorm::batch) {
      if (is_finite) remember(s.running_mean, c, step.at(row_mean, c)), remember(s.running_var, c, second * rows / (rows - 1));
    } else if (m.method == BatchNorm::power) {
      if (t > m.warmup) used = running;
      // Young: the plain mean of all steps.
      if (is_finite && t < m.warmup) s.running_var[c] = S(running * (double(t - 1) / double(t)) + second / double(t));
      if (is_finite) remember(s.running_var, c, second);
    } else {
      const bool unified = m.method == BatchNorm::unified, stays_out = unified ? step.is(fact_outlier) : !is_finite;
      s.buffer_x2[t % m.window_forward * n + c] = S(stays_out ? running : second);
      if (!stays_out && !skips() && !young(m, t, m.window_forward))
        used = unified ? geometric_mean(s.buffer_x2, m.window_forward, n, c) : arithmetic_mean(s.buffer_x2, m.window_forward, n, c);
      correction = clipped_correction(used, running);
      if (is_finite) remember(s.running_var, c, used);   // an outlier too, as released
    }
    step.at(row_used, c) = used, step.at(row_correction, c) = correction;
  }
};

template <class S> struct Constants {   // evaluation
  State<S> s;
  Step step;
  HD void operator()(int64_t c) const {
    step.at(row_mean, c) = s.running_mean ? double(s.running_mean[c]) : 0, step.at(row_second, c) = 0;
    step.at(row_used, c) = double(s.running_var[c]), step.at(row_correction, c) = 1;
  }
};

// y = (x - mean) by_x + shift: MABN corrects what it gives; UN's correction is of the gradient only.
template <class C> struct ForwardTable {
  ChannelNorm m;
  Step step;
  const C *weight, *bias;
  C* table;   // [3, columns]
  HD void operator()(int64_t c) const {
    const double correction = m.method == BatchNorm::moving_average ? step.at(row_correction, c) : 1;
    table[c] = C(step.at(row_mean, c));
    table[step.columns + c] = C(double(weight[c]) * correction / sqrt(step.at(row_used, c) + m.eps));
    table[2 * step.columns + c] = bias[c];
  }
};

// From the column sums of dy (x - mean) and of dy.
template <class C> struct BackwardSums {
  ChannelNorm m;
  Step step;
  const C *sums, *weight;
  double rows;
  template <class Team> HD void operator()(int64_t, const Team& team) const {
    const double spoilt = team.template sum<double>(step.columns, [&](int64_t c) {
      const double dweight = step.at(row_correction, c) / sqrt(step.at(row_used, c) + m.eps) * double(sums[c]), h = double(weight[c]) * dweight / rows;
      step.at(row_dweight, c) = dweight, step.at(row_along, c) = h, step.at(row_total, c) = double(sums[step.columns + c]), step.at(row_psi, c) = 0;
      return finite(h) ? 0.0 : 1.0;
    });
    if (team.leads()) step.facts[fact_gradient_finite] = spoilt == 0;
  }
};

// psi, the part of the gradient along z that is taken away, from h = mean(G z) of this batch. Brings the state of a channel up to date.
template <class S> struct SmoothGradient {
  ChannelNorm m;
  State<S> s;
  Step step;

  HD double psi(int64_t c) const {
    const bool is_finite = step.is(fact_finite) && step.is(fact_gradient_finite);
    const double h = step.at(row_along, c);
    const int64_t t = step.t(), n = step.columns;
    if (m.method == BatchNorm::batch) return h;
    if (m.method == BatchNorm::power) {
      const double sum = double(s.ema_gz[c]), part = (1 - m.alpha) * sum;
      if (is_finite) s.ema_gz[c] = S(sum + h - part * step.at(row_second, c) / (step.at(row_used, c) + m.eps));   // + mean((G - psi z) z)
      return part;
    }
    S& slot = s.buffer_gz[t % m.window_backward * n + c];
    if (m.method == BatchNorm::moving_average) {
      if (!is_finite) return h;
      slot = S(h);
      return young(m, t, m.window_backward) ? h : arithmetic_mean(s.buffer_gz, m.window_backward, n, c);
    }
    const bool skip = step.is(fact_outlier) || m.window_forward <= 1 || !is_finite;
    slot = skip ? s.ema_gz[c] : S(h);
    const double now = skip || young(m, t, m.window_backward) ? h : arithmetic_mean(s.buffer_gz, m.window_backward, n, c);
    if (is_finite) s.ema_gz[c] = S(smoothed(double(s.ema_gz[c]), m.alpha, now));
    return skip ? now : double(s.ema_gz[c]);
  }
  HD void operator()(int64_t c) const { step.at(row_psi, c) = psi(c); }
};

// dx = by_dy dy + by_x (x - mean) + shift = (G - psi_mean - psi z) / sqrt(v + eps) with G = w r dy; psi_mean = mean(G) for `batch`, else 0; v of PN
// is the batch's own here.
template <class C> struct BackwardTable {
  ChannelNorm m;
  Step step;
  const C* weight;
  bool training;
  double rows;
  C* table;   // [5, columns]: by_dy, by_x, shift, dweight, dbias
  HD void operator()(int64_t c) const {
    const int64_t n = step.columns;
    const double gain = double(weight[c]), inverse = 1 / sqrt(step.at(row_used, c) + m.eps), total = step.at(row_total, c);
    const double out = training && m.method == BatchNorm::power ? 1 / sqrt(step.at(row_second, c) + m.eps) : inverse;
    table[c] = C(gain * step.at(row_correction, c) * out);
    table[n + c] = C(-step.at(row_psi, c) * inverse * out);
    table[2 * n + c] = C(training && m.method == BatchNorm::batch ? -gain * total / rows * out : 0);
    table[3 * n + c] = C(step.at(row_dweight, c));
    table[4 * n + c] = C(total);
  }
};

}  // namespace channels
