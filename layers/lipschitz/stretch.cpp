// stretch.cpp: batched power iteration of Jacobians, and ascent on what they stretch most.
#include "layers/lipschitz/stretch.h"

#include <algorithm>
#include <cmath>

#include "engine/random.h"

namespace {

double l2(const double* x, int64_t n) {
  double squares = 0;
  for (int64_t i = 0; i < n; i++) squares += x[i] * x[i];
  return std::sqrt(squares);
}

std::vector<double> plus(const std::vector<double>& x, const std::vector<double>& d, double factor) {
  std::vector<double> y = x;
  for (size_t i = 0; i < y.size(); i++) y[i] += factor * d[i];
  return y;
}

}  // namespace

// A sample's l2 norm, or the RMS of its longest token.
double StretchSearch::size(const Numbers& x, int64_t sample, int64_t samples, int64_t width) const {
  const int64_t n = int64_t(x.size()) / samples;
  const double* from = x.data() + sample * n;
  if (!options_.rms) return l2(from, n);
  double longest = 0;
  for (int64_t t = 0; t < n; t += width) longest = std::max(longest, l2(from + t, width));
  return longest / std::sqrt(double(width));
}

// Every sample gets size 1; with rms every token of it does.
void StretchSearch::normalise(Numbers& v) const {
  const int64_t n = options_.rms ? in_[-1] : int64_t(v.size()) / in_[0];
  const double to = options_.rms ? std::sqrt(double(n)) : 1;
  for (size_t begin = 0; begin < v.size(); begin += size_t(n)) {
    const double length = l2(v.data() + begin, n);
    for (int64_t i = 0; i < n && length > 0; i++) v[begin + size_t(i)] *= to / length;
  }
}

// The u with |u|* = 1 and u . y = |y|, up to a factor: all of a sample's y, or its longest token.
StretchSearch::Numbers StretchSearch::dual(Numbers y) const {
  const int64_t samples = out_[0], n = int64_t(y.size()) / samples, width = out_[-1];
  for (int64_t s = 0; s < samples; s++) {
    double* own = y.data() + s * n;
    if (options_.rms) {
      int64_t longest = 0;
      for (int64_t t = width; t < n; t += width)
        if (l2(own + t, width) > l2(own + longest, width)) longest = t;
      for (int64_t i = 0; i < n; i++)
        if (i < longest || i >= longest + width) own[i] = 0;
    }
    const double length = l2(own, n);
    for (int64_t i = 0; i < n && length > 0; i++) own[i] /= length;
  }
  return y;
}

StretchSearch::Pair StretchSearch::pair(const Numbers& x, const Numbers& v) {
  Numbers a = plus(x, v, options_.step), b = plus(x, v, -options_.step);
  into_domain_(a);
  into_domain_(b);
  const Tensor to_a = Tensor::from(in_, a, dtype_, device_), to_b = Tensor::from(in_, b, dtype_, device_), fa = f_(to_a), fb = f_(to_b);
  out_ = fa.shape();
  // The inputs as they were after rounding.
  Pair p{plus(to_a.values(), to_b.values(), -1), plus(fa.values(), fb.values(), -1), {}};
  for (int64_t s = 0; s < in_[0]; s++) {
    const double apart = size(p.apart, s, in_[0], in_[-1]), moved = size(p.moved, s, in_[0], out_[-1]);
    p.stretch.push_back(apart > 0 && std::isfinite(moved) ? moved / apart : 0);
  }
  return p;
}

StretchSearch::Numbers StretchSearch::pulled(const Numbers& x, const Numbers& u) {
  Tensor in = Tensor::from(in_, x, dtype_, device_);
  want_grad(in);
  Tape tape;
  Tensor y;
  {
    const TapeScope open(&tape);
    y = f_(in);
  }
  tape.backward(y, Tensor::from(y.shape(), u, y.dtype(), device_));
  const Tensor g = grad_of(in);
  return g ? g.values() : Numbers(x.size(), 0.0);
}

// v becomes the best direction at x; the pair that it makes there.
StretchSearch::Pair StretchSearch::settle(const Numbers& x, Numbers& v, int times) {
  normalise(v);
  for (int k = 0; k < times; k++) {
    Numbers w = pulled(x, dual(pair(x, v).moved));
    normalise(w);
    v = std::move(w);
  }
  return pair(x, v);
}

std::vector<double> StretchSearch::from(const Tensor& start, uint64_t seed) {
  in_ = start.shape();
  dtype_ = start.dtype();
  const int64_t samples = in_[0], n = in_.size() / samples;
  x_ = start.values();
  device_ = start.device();
  Numbers v(x_.size());
  const RandomStream stream(seed, "stretch");
  for (size_t i = 0; i < v.size(); i++) {
    const Words w = stream.words(0, i, 0);
    v[i] = normal_from(w[0], w[1]);
  }
  Pair best = settle(x_, v, options_.power_steps);
  std::vector<double> strides(size_t(samples), options_.stride);
  for (int k = 0; k < options_.ascents; k++) {
    const Numbers u = dual(best.moved), up = pulled(plus(x_, v, options_.step), u), slope = plus(up, pulled(plus(x_, v, -options_.step), u), -1);
    Numbers next = x_, w = v;
    for (int64_t s = 0; s < samples; s++) {
      const double length = l2(slope.data() + s * n, n);
      for (int64_t i = s * n; i < (s + 1) * n && length > 0; i++) next[size_t(i)] += strides[size_t(s)] * slope[size_t(i)] / length;
    }
    into_domain_(next);
    const Pair found = settle(next, w, 3);
    const int64_t out = int64_t(found.moved.size()) / samples;
    for (int64_t s = 0; s < samples; s++) {
      const bool better = found.stretch[size_t(s)] > best.stretch[size_t(s)];
      strides[size_t(s)] *= better ? 1.3 : 0.5;
      if (!better) continue;
      best.stretch[size_t(s)] = found.stretch[size_t(s)];
      std::copy_n(next.begin() + s * n, n, x_.begin() + s * n);
      std::copy_n(w.begin() + s * n, n, v.begin() + s * n);
      std::copy_n(found.moved.begin() + s * out, out, best.moved.begin() + s * out);
    }
  }
  return best.stretch;
}
