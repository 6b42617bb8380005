// patchify: normalised images [B, C, H, W] -> patch rows [B, H/P * W/P, C*P*P], channel-major like the weight of the P x P stride P convolution.
#include "engine/map.h"
#include "engine/ops.h"
#include "engine/profile.h"

namespace {

template <class T> struct Gather {   // forward: rows from pixels; backward: pixels from rows. Each pixel is in exactly one patch.
  T *pixels, *rows;
  bool to_rows, add;
  int64_t channels, height, width, patch;
  HD void operator()(int64_t i) const {   // i counts pixels
    const int64_t x = i % width, y = i / width % height, c = i / (width * height) % channels, b = i / (width * height * channels);
    const int64_t token = (b * (height / patch) + y / patch) * (width / patch) + x / patch;
    const int64_t at = token * channels * patch * patch + (c * patch + y % patch) * patch + x % patch;
    if (to_rows) rows[at] = pixels[i];
    else pixels[i] = T((add ? Compute<T>(pixels[i]) : Compute<T>(0)) + Compute<T>(rows[at]));
  }
};

}  // namespace

Tensor patchify(const Tensor& images, int patch) {
  const OpRange range("patchify");
  check(images.shape().rank() == 4 && images.dim(2) % patch == 0 && images.dim(3) % patch == 0,
        "[patchify] [B, C, H, W] with H and W divisible by ", patch, " expected, given ", images.shape());
  const int64_t batch = images.dim(0), channels = images.dim(1), height = images.dim(2), width = images.dim(3);
  Tensor rows = Tensor::empty({batch, height / patch * (width / patch), channels * patch * patch}, images.dtype(), images.device());
  count_kernel({images}, {rows});
  dispatch(images.dtype(), [&]<class T>() {
    map(images.device(), images.size(), Gather<T>{images.data<T>(), rows.data<T>(), true, false, channels, height, width, patch});
  });
  record("patchify", rows, {images}, [=](const Tensor& dy) {
    auto target = into(images);
    count_kernel({dy}, {target});
    dispatch(dy.dtype(), [&]<class T>() {
      map(dy.device(), dy.size(), Gather<T>{target.grad.data<T>(), dy.data<T>(), false, target.beta != 0, channels, height, width, patch});
    });
  });
  return rows;
}
