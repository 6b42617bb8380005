// patch_merge: [B, H, W, C] -> [B, H/2 * W/2, 4C]: the 2x2 neighbours side by side, in the order (row, column) = (0,0) (1,0) (0,1) (1,1) (Swin).
#include "engine/map.h"
#include "engine/ops.h"
#include "engine/profile.h"

namespace {

struct Merge {
  int64_t height, width, columns;   // of the full map
  // Row of the full map that phase `piece % 4` of merged row `piece / 4` comes from.
  HD int64_t source(int64_t piece) const {
    const int64_t phase = piece % 4, merged = piece / 4, w2 = width / 2, h2 = height / 2;
    const int64_t x = merged % w2, y = merged / w2 % h2, b = merged / (w2 * h2);
    return (b * height + 2 * y + phase % 2) * width + 2 * x + phase / 2;
  }
};

template <class T> struct Forward {
  const T* x;
  T* y;
  Merge merge;
  template <class Team> HD void operator()(int64_t piece, const Team& team) const {
    const T* in = x + merge.source(piece) * merge.columns;
    T* out = y + piece * merge.columns;
    team.each(merge.columns, [&](int64_t j) { out[j] = in[j]; });
  }
};

template <class T> struct Backward {
  const T* dy;
  T* dx;
  bool add;
  Merge merge;
  template <class Team> HD void operator()(int64_t piece, const Team& team) const {
    const T* in = dy + piece * merge.columns;
    T* out = dx + merge.source(piece) * merge.columns;
    team.each(merge.columns, [&](int64_t j) { out[j] = T((add ? Compute<T>(out[j]) : Compute<T>(0)) + Compute<T>(in[j])); });
  }
};

}  // namespace

Tensor patch_merge(const Tensor& x) {
  const OpRange range("patch_merge");
  check(x.shape().rank() == 4 && x.dim(1) % 2 == 0 && x.dim(2) % 2 == 0, "[patch_merge] [B, H, W, C] with even H and W expected, given ", x.shape());
  const int64_t batch = x.dim(0), height = x.dim(1), width = x.dim(2), columns = x.dim(3), pieces = batch * height * width;
  const Merge merge{height, width, columns};
  Tensor y = Tensor::empty({batch, height / 2 * (width / 2), 4 * columns}, x.dtype(), x.device());
  count_kernel({x}, {y});
  dispatch(x.dtype(), [&]<class T>() { map_rows(x.device(), pieces, Forward<T>{x.data<T>(), y.data<T>(), merge}); });
  record("patch_merge", y, {x}, [=](const Tensor& dy) {
    auto target = into(x);
    count_kernel({dy}, {target});
    dispatch(dy.dtype(), [&]<class T>() {
      map_rows(dy.device(), pieces, Backward<T>{dy.data<T>(), target.grad.data<T>(), target.beta != 0, merge});
    });
  });
  return y;
}
