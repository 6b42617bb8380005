// unfold: overlapping patches as rows: [B, H, W, C] -> [B, L, C*K*K], zero padding, feature c*K*K + ky*K + kx. torch.nn.Unfold of a
// channels-last map, with the tokens before the features.
#include "engine/map.h"
#include "engine/ops.h"
#include "engine/profile.h"

namespace {

struct Patches {
  int64_t height, width, channels, kernel, stride, padding;
  HD int64_t down() const { return (height + 2 * padding - kernel) / stride + 1; }
  HD int64_t across() const { return (width + 2 * padding - kernel) / stride + 1; }
  HD int64_t features() const { return channels * kernel * kernel; }
  // The patches first .. last of one dimension that hold a place. Its offset in patch p is place + padding - p * stride.
  HD int64_t first(int64_t place) const {
    const int64_t beyond = place + padding - kernel;
    return beyond < 0 ? 0 : beyond / stride + 1;
  }
  HD int64_t last(int64_t place, int64_t count) const {
    const int64_t p = (place + padding) / stride;
    return p < count ? p : count - 1;
  }
};

template <class T> struct Forward {
  const T* x;
  T* y;
  const int32_t *offset, *row_of, *column_of;   // a feature: where it lies from the patch's corner, in numbers, rows and columns
  Patches p;
  template <class Team> HD void operator()(int64_t token, const Team& team) const {
    const int64_t across = p.across(), down = p.down(), features = p.features(), height = p.height, width = p.width;
    const int64_t top = token / across % down * p.stride - p.padding, left = token % across * p.stride - p.padding;
    const int64_t corner = ((token / (across * down) * height + top) * width + left) * p.channels;
    const int32_t *o = offset, *r = row_of, *c = column_of;
    const T* in = x;
    T* out = y + token * features;
    if (top >= 0 && left >= 0 && top + p.kernel <= height && left + p.kernel <= width)
      return team.each(features, [&](int64_t j) { out[j] = in[corner + o[j]]; });
    team.each(features, [&](int64_t j) {
      const bool inside = uint64_t(top + r[j]) < uint64_t(height) && uint64_t(left + c[j]) < uint64_t(width);
      out[j] = inside ? in[corner + o[j]] : T(Compute<T>(0));
    });
  }
};

// Each pixel gathers from the patches that hold it, in their order; the sum is rounded once.
template <class T> struct Backward {
  const T* dy;
  T* dx;
  bool add;
  Patches p;
  template <class Team> HD void operator()(int64_t pixel, const Team& team) const {
    using C = Compute<T>;
    const int64_t x = pixel % p.width, y = pixel / p.width % p.height, image = pixel / (p.width * p.height);
    const int64_t across = p.across(), down = p.down(), features = p.features(), area = p.kernel * p.kernel;
    const int64_t top = p.first(y), bottom = p.last(y, down), left = p.first(x), right = p.last(x, across);
    const int64_t row = y + p.padding, column = x + p.padding, stride = p.stride, kernel = p.kernel;
    const T* of_image = dy + image * down * across * features;
    T* out = dx + pixel * p.channels;
    const bool adds = add;
    team.each(p.channels, [&](int64_t c) {
      C sum = adds ? C(out[c]) : C(0);
      for (int64_t py = top; py <= bottom; py++)
        for (int64_t px = left; px <= right; px++)
          sum += C(of_image[(py * across + px) * features + c * area + (row - py * stride) * kernel + column - px * stride]);
      out[c] = T(sum);
    });
  }
};

// What Forward looks up for each feature, [3, C*K*K]; made where it is used, because a recorded step copies nothing from the host.
struct FeaturePlaces {
  Patches p;
  int32_t* places;
  HD void operator()(int64_t f) const {
    const int64_t features = p.features(), channel = f / (p.kernel * p.kernel), ky = f / p.kernel % p.kernel, kx = f % p.kernel;
    places[f] = int32_t((ky * p.width + kx) * p.channels + channel);
    places[features + f] = int32_t(ky);
    places[2 * features + f] = int32_t(kx);
  }
};

}  // namespace

Tensor unfold(const Tensor& x, int kernel, int stride, int padding) {
  const OpRange range("unfold");
  check(x.shape().rank() == 4 && kernel > 0 && stride > 0 && padding >= 0 && padding < kernel,
        "[unfold] [B, H, W, C] and 0 <= padding < kernel expected, given ", x.shape(), ", kernel ", kernel, ", stride ", stride,
        ", padding ", padding);
  const Patches p{x.dim(1), x.dim(2), x.dim(3), kernel, stride, padding};
  check(p.height + 2 * padding >= kernel && p.width + 2 * padding >= kernel, "[unfold] no patch of ", kernel, " fits ", x.shape());
  const int64_t tokens = p.down() * p.across();
  const Tensor places = Tensor::empty({3, p.features()}, DType::i32, x.device());
  map(x.device(), p.features(), FeaturePlaces{p, places.data<int32_t>()});
  Tensor y = Tensor::empty({x.dim(0), tokens, p.features()}, x.dtype(), x.device());
  count_kernel({x}, {y});
  dispatch(x.dtype(), [&]<class T>() {
    const int32_t* offset = places.data<int32_t>();
    map_rows(x.device(), y.rows(), Forward<T>{x.data<T>(), y.data<T>(), offset, offset + p.features(), offset + 2 * p.features(), p});
  });
  record("unfold", y, {x}, [x, p](const Tensor& dy) {
    const Into target = into(x);
    count_kernel({dy}, {target});
    dispatch(dy.dtype(), [&]<class T>() { map_rows(dy.device(), x.rows(), Backward<T>{dy.data<T>(), target.grad.data<T>(), target.beta != 0, p}); });
  });
  return y;
}
