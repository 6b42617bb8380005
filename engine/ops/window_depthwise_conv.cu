// window_depthwise_conv: depthwise convolution inside each of the windows that tile a map, zero padding at their edges (LePE of CSwin):
// y[h, w, c] = bias[c] + sum over i, j of weight[c, i, j] x[h + i - K/2, w + j - K/2, c], of places in the window of (h, w).
#include "engine/map.h"
#include "engine/ops.h"
#include "engine/profile.h"

namespace {

struct Windows {
  int64_t height, width, channels, window_height, window_width, kernel;
  HD int64_t taps() const { return kernel * kernel; }
};

// What the taps of one place may reach: i from top to bottom, j from left to right, the ends not included. x[i, j] lies at
// at(i, j) * channels.
struct Reach {
  int64_t top, bottom, left, right, corner, width;
  HD Reach(const Windows& s, int64_t place) : width(s.width) {
    const int64_t pad = s.kernel / 2, row = place / s.width % s.height % s.window_height, column = place % s.width % s.window_width;
    top = pad > row ? pad - row : 0;
    left = pad > column ? pad - column : 0;
    bottom = s.kernel < s.window_height + pad - row ? s.kernel : s.window_height + pad - row;
    right = s.kernel < s.window_width + pad - column ? s.kernel : s.window_width + pad - column;
    corner = place - pad * s.width - pad;
  }
  HD int64_t at(int64_t i, int64_t j) const { return corner + i * width + j; }
};

// y (+)= bias + the convolution with taps [K*K, C]. y is of the computing type: sums are rounded once, by whoever reads them.
template <class T> struct Convolve {
  const T* x;
  const Compute<T>*taps, *bias;   // bias may be null
  Compute<T>* y;
  bool add;
  Windows s;
  template <class Team> HD void operator()(int64_t place, const Team& team) const {
    using C = Compute<T>;
    const Reach reach(s, place);
    const int64_t channels = s.channels;
    const C* b = bias;
    C* out = y + place * channels;
    if (b) team.each(channels, [&](int64_t c) { out[c] = b[c]; });
    else if (!add) team.each(channels, [&](int64_t c) { out[c] = 0; });
    for (int64_t i = reach.top; i < reach.bottom; i++)
      for (int64_t j = reach.left; j < reach.right; j++) {
        const T* in = x + reach.at(i, j) * channels;
        const C* tap = taps + (i * s.kernel + j) * channels;
        team.each(channels, [&](int64_t c) { out[c] += tap[c] * C(in[c]); });
      }
  }
};

template <class T> struct Sums {   // of the taps' gradients, then of the bias'
  const T *x, *dy;
  Windows s;
  template <class Team> HD void operator()(int64_t place, const Team& team, const ColumnSums<Compute<T>>& sums) const {
    using C = Compute<T>;
    const Reach reach(s, place);
    const int64_t channels = s.channels;
    const T* g = dy + place * channels;
    for (int64_t i = reach.top; i < reach.bottom; i++)
      for (int64_t j = reach.left; j < reach.right; j++) {
        const T* in = x + reach.at(i, j) * channels;
        C* to = sums.sums + (i * s.kernel + j) * channels;
        team.each(channels, [&](int64_t c) { to[c] += C(g[c]) * C(in[c]); });
      }
    team.each(channels, [&](int64_t c) { sums.add(int(s.taps()), c, C(g[c])); });
  }
};

template <class T> struct PackTaps {   // weight [C, 1, K, K] to [K*K, C]; flipped for the way back
  const T* weight;
  Compute<T>* taps;
  int64_t count, channels;
  bool flip;
  HD void operator()(int64_t i) const {
    const int64_t tap = i / channels, channel = i % channels;
    taps[i] = Compute<T>(weight[channel * count + (flip ? count - 1 - tap : tap)]);
  }
};

template <class C, class T> struct AddTaps {   // sums [K*K, C] to the gradient of weight [C, 1, K, K]
  const C* sums;
  T* grad;
  bool add;
  int64_t count, channels;
  HD void operator()(int64_t i) const {
    const int64_t channel = i / count, tap = i % count;
    grad[i] = T((add ? Compute<T>(grad[i]) : Compute<T>(0)) + Compute<T>(sums[tap * channels + channel]));
  }
};

Tensor packed(const Tensor& weight, DType activations, bool flip) {
  const Tensor wide = computed(weight, activations), taps = Tensor::like(wide);
  const int64_t channels = weight.dim(0);
  dispatch(wide.dtype(), [&]<class C>() {
    map(wide.device(), wide.size(), PackTaps<C>{wide.data<C>(), taps.data<Compute<C>>(), weight.size() / channels, channels, flip});
  });
  return taps;
}

void add_taps(const Tensor& sums, const Tensor& weight) {
  if (!weight.wants_grad()) return;
  auto [grad, beta] = into(weight);
  const int64_t channels = weight.dim(0);
  dispatch(sums.dtype(), [&]<class C>() {
    dispatch(grad.dtype(), [&]<class T>() {
      map(grad.device(), grad.size(), AddTaps<C, T>{sums.data<C>(), grad.data<T>(), beta != 0, weight.size() / channels, channels});
    });
  });
}

// y in a narrower type.
Tensor rounded(const Tensor& y, DType dtype) {
  count_kernel({y}, {y.size() * int64_t(size_of(dtype))});
  return dry_run() ? Tensor::empty(y.shape(), dtype, y.device()) : y.to(dtype);
}

void add_to_x(const Tensor& x, const Tensor& weight, const Tensor& dy, const Windows& s) {
  const Tensor taps = packed(weight, x.dtype(), true);
  const bool direct = x.dtype() == taps.dtype();
  const Into target = direct ? into(x) : Into{Tensor::empty(x.shape(), taps.dtype(), x.device()), 0};
  count_kernel({dy, taps}, {target}, x.size() * s.taps(), Units::vector);
  dispatch(x.dtype(), [&]<class T>() {
    using C = Compute<T>;
    map_rows(x.device(), x.rows(), Convolve<T>{dy.data<T>(), taps.data<C>(), nullptr, target.grad.data<C>(), target.beta != 0, s});
  });
  if (!direct) add_to_gradient(target.grad, x);
}

}  // namespace

Tensor window_depthwise_conv(const Tensor& x, const Tensor& weight, const Tensor& bias, int window_height, int window_width) {
  const OpRange range("window_depthwise_conv");
  check(x.shape().rank() == 4 && window_height > 0 && window_width > 0 && x.dim(1) % window_height == 0 && x.dim(2) % window_width == 0,
        "[window_depthwise_conv] [B, H, W, C] in windows of ", window_height, " x ", window_width, " expected, given ", x.shape());
  check(weight.shape().rank() == 4 && weight.dim(0) == x.dim(3) && weight.dim(1) == 1, "[window_depthwise_conv] x is ", x.shape(),
        ": weight must be [C, 1, K, K], given ", weight.shape());
  check(weight.dim(2) == weight.dim(3) && weight.dim(2) % 2 == 1, "[window_depthwise_conv] the kernel must be square and odd, not ",
        weight.shape());
  check(!bias || bias.size() == x.dim(3), "[window_depthwise_conv] x is ", x.shape(), ": bias must be [C], given ", bias.shape());
  const Windows s{x.dim(1), x.dim(2), x.dim(3), window_height, window_width, weight.dim(2)};
  const Tensor taps = packed(weight, x.dtype(), false), b = computed(bias, x.dtype());
  Tensor y = Tensor::empty(x.shape(), taps.dtype(), x.device());
  count_kernel({x, taps, b}, {y}, x.size() * s.taps(), Units::vector);
  dispatch(x.dtype(), [&]<class T>() {
    using C = Compute<T>;
    map_rows(x.device(), x.rows(), Convolve<T>{x.data<T>(), taps.data<C>(), b ? b.data<C>() : nullptr, y.data<C>(), false, s});
  });
  if (y.dtype() != x.dtype()) y = rounded(y, x.dtype());
  record("window_depthwise_conv", y, {x, weight, bias}, [=](const Tensor& dy) {
    const bool wants_sums = weight.wants_grad() || (bias && bias.wants_grad());
    if (x.wants_grad()) add_to_x(x, weight, dy, s);
    if (!wants_sums) return;
    count_kernel({x, dy}, {}, x.size() * s.taps(), Units::vector);
    dispatch(x.dtype(), [&]<class T>() {
      using C = Compute<T>;
      const Tensor sums = map_rows_reduce<C>(x.device(), x.rows(), s.channels, int(s.taps()) + 1, Sums<T>{x.data<T>(), dy.data<T>(), s});
      add_taps(sums, weight);
      if (bias) add_sums<C>(sums, int(s.taps()), bias);
    });
  });
  return y;
}
