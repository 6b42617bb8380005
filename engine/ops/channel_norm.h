// channel_norm.h: what BN, MABN, PN and UN make of the statistics of a batch. On the host and in double: [C] numbers a step.
#pragma once
#include <algorithm>
#include <cmath>

#include "engine/ops.h"

namespace channels {

using Numbers = std::vector<double>;

// A training step as forward saw it. z = (x - mean) / sqrt(used + eps).
struct Step {
  int64_t t = 0;         // training forwards so far, this one included
  bool finite = true;    // otherwise the running statistics are left as they were
  bool skip = false;     // unified: nothing of this step is smoothed
  Numbers mean;          // 0 for all but `batch`
  Numbers second;        // second moment of this batch about the mean
  Numbers used;          // the one that normalises
  Numbers correction;    // r: sqrt(used + eps) / sqrt(running_var + eps), clipped; 1 while young
};

inline bool all_finite(const Numbers& values) {
  return std::all_of(values.begin(), values.end(), [](double v) { return std::isfinite(v); });
}

inline void store(const Tensor& state, const Numbers& values) {
  dispatch(state.dtype(), [&]<class T>() { std::transform(values.begin(), values.end(), state.data<T>(), [](double v) { return T(v); }); });
}

// average = alpha average + (1 - alpha) now.
inline void smooth(const Tensor& average, double alpha, const Numbers& now) {
  Numbers a = average.values();
  for (size_t c = 0; c < a.size(); c++) a[c] = alpha * a[c] + (1 - alpha) * now[c];
  store(average, a);
}

inline void count(const Tensor& counter) { store(counter, {counter.item() + 1}); }

inline Numbers arithmetic_means(const Tensor& window) {
  const int64_t m = window.dim(0), n = window.dim(1);
  const Numbers all = window.values();
  Numbers out(n, 0.0);
  for (int64_t i = 0; i < m * n; i++) out[i % n] += all[i] / double(m);
  return out;
}

// exp of the mean logarithm: 0 as soon as one number is 0.
inline Numbers geometric_means(const Tensor& window) {
  const int64_t m = window.dim(0), n = window.dim(1);
  const Numbers all = window.values();
  Numbers out(n, 0.0);
  for (int64_t i = 0; i < m * n; i++) out[i % n] += std::log(all[i]) / double(m);
  for (double& v : out) v = std::exp(v);
  return out;
}

// Variance of the roots of the numbers begin, begin + stride, ...; `spare` is what the divisor lacks of their count.
inline double variance_of_roots(const Numbers& all, size_t begin, size_t stride, int spare) {
  double n = 0, mean = 0, squares = 0;
  for (size_t i = begin; i < all.size(); i += stride) n++, mean += std::sqrt(all[i]);
  mean /= n;
  for (size_t i = begin; i < all.size(); i += stride) squares += std::pow(std::sqrt(all[i]) - mean, 2);
  return n > spare ? squares / (n - spare) : 0;
}

// AM - GM > M V in any channel. V is of the roots of the window before this step, which the caller kept:
// `pooled`, the released code: one sample variance over all channels and steps, so it holds the spread between channels too;
// `per_channel`, the paper's letter: the population variance of the channel's own window, for which the paper proves its inequality
// (equality at M = 2, so it fires in about every step).
inline bool is_outlier(ChannelNorm::Filter filter, const Numbers& before, const Tensor& window) {
  const size_t m = size_t(window.dim(0)), n = size_t(window.dim(1));
  const Numbers arithmetic = arithmetic_means(window), geometric = geometric_means(window);
  const double pooled = variance_of_roots(before, 0, 1, 1);
  for (size_t c = 0; c < n; c++) {
    const double v = filter == ChannelNorm::pooled ? pooled : variance_of_roots(before, c, n, 0);
    if (arithmetic[c] - geometric[c] > double(m) * v) return true;
  }
  return false;
}

inline bool young(const ChannelNorm& m, const Step& step, int window) { return step.t <= window || step.t < m.warmup; }

inline Numbers clipped_correction(const ChannelNorm& m, const Step& step, const Numbers& running) {
  Numbers r(running.size(), 1.0);
  if (step.skip || !step.finite || step.t <= std::max(1000, m.warmup)) return r;
  for (size_t c = 0; c < r.size(); c++) r[c] = std::clamp(std::sqrt((step.used[c] + m.eps) / (running[c] + m.eps)), 0.2, 5.0);
  return r;
}

inline void forward_unified(const ChannelNorm& m, const ChannelNormState& s, Step& step) {
  const Tensor slot = s.buffer_x2.slice(step.t % m.window_forward, 1);
  const Numbers before = s.buffer_x2.values(), running = s.running_var.values();
  store(slot, step.second);
  const bool filters = m.filter != ChannelNorm::no_filter && m.window_forward > 1 && step.t >= m.warmup;
  const bool outlier = !step.finite || (filters && is_outlier(m.filter, before, s.buffer_x2));
  if (outlier) {
    store(slot, running);
    count(s.skip_counter);
  }
  step.skip = outlier || m.window_forward <= 1;
  if (!step.skip && !young(m, step, m.window_forward)) step.used = geometric_means(s.buffer_x2);
  step.correction = clipped_correction(m, step, running);
  if (step.finite) smooth(s.running_var, m.alpha, step.used);   // an outlier too, as released
}

inline void forward_moving_average(const ChannelNorm& m, const ChannelNormState& s, Step& step) {
  const Numbers running = s.running_var.values();
  store(s.buffer_x2.slice(step.t % m.window_forward, 1), step.finite ? step.second : running);
  if (step.finite && !young(m, step, m.window_forward)) step.used = arithmetic_means(s.buffer_x2);
  step.correction = clipped_correction(m, step, running);
  if (step.finite) smooth(s.running_var, m.alpha, step.used);
}

inline void forward_power(const ChannelNorm& m, const ChannelNormState& s, Step& step) {
  Numbers phi = s.running_var.values();
  if (step.t > m.warmup) step.used = phi;
  if (!step.finite) return;
  const double t = double(step.t);
  if (step.t < m.warmup)   // young: the plain mean of all steps
    for (size_t c = 0; c < phi.size(); c++) phi[c] = phi[c] * ((t - 1) / t) + step.second[c] / t;
  store(s.running_var, phi);
  smooth(s.running_var, m.alpha, step.second);
}

inline void forward_batch(const ChannelNorm& m, const ChannelNormState& s, Step& step, int64_t rows) {
  if (!step.finite) return;
  Numbers unbiased = step.second;
  for (double& v : unbiased) v *= double(rows) / double(rows - 1);
  smooth(s.running_mean, m.alpha, step.mean);
  smooth(s.running_var, m.alpha, unbiased);
}

// What to normalise with in training, given the mean and second moment of this batch. Brings the state up to date.
inline Step forward(const ChannelNorm& m, const ChannelNormState& s, const Numbers& mean, const Numbers& second, int64_t rows) {
  Step step{.mean = mean, .second = second, .used = second, .correction = Numbers(second.size(), 1.0)};
  step.finite = all_finite(mean) && all_finite(second);
  count(s.iters);
  step.t = int64_t(s.iters.item());
  switch (m.method) {
    case BatchNorm::batch: forward_batch(m, s, step, rows); break;
    case BatchNorm::moving_average: forward_moving_average(m, s, step); break;
    case BatchNorm::power: forward_power(m, s, step); break;
    case BatchNorm::unified: forward_unified(m, s, step); break;
  }
  return step;
}

// psi, the part of the gradient along z that is taken away, from h = mean(G z) of this batch. Brings the state up to date.
inline Numbers smoothed_gradient(const ChannelNorm& m, const ChannelNormState& s, const Step& step, const Numbers& h) {
  const bool finite = step.finite && all_finite(h);
  if (m.method == BatchNorm::batch) return h;
  if (m.method == BatchNorm::power) {
    const Numbers sum = s.ema_gz.values();
    Numbers psi = sum, next = sum;
    for (size_t c = 0; c < h.size(); c++) {
      psi[c] = (1 - m.alpha) * sum[c];
      next[c] = sum[c] + h[c] - psi[c] * step.second[c] / (step.used[c] + m.eps);   // + mean((G - psi z) z)
    }
    if (finite) store(s.ema_gz, next);
    return psi;
  }
  const Tensor slot = s.buffer_gz.slice(step.t % m.window_backward, 1);
  if (m.method == BatchNorm::moving_average) {
    if (!finite) return h;
    store(slot, h);
    return young(m, step, m.window_backward) ? h : arithmetic_means(s.buffer_gz);
  }
  const bool skip = step.skip || !finite;
  store(slot, skip ? s.ema_gz.values() : h);
  const Numbers psi = skip || young(m, step, m.window_backward) ? h : arithmetic_means(s.buffer_gz);
  if (finite) smooth(s.ema_gz, m.alpha, psi);
  return skip ? psi : s.ema_gz.values();
}

}  // namespace channels
