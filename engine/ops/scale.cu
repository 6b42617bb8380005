// scale: y = factor * x.
#include "engine/map.h"
#include "engine/ops.h"
#include "engine/profile.h"

namespace {

template <class T> struct Scaled {
  const T* x;
  T* y;
  Compute<T> factor;
  bool add;
  HD void operator()(int64_t i) const { y[i] = T((add ? Compute<T>(y[i]) : Compute<T>(0)) + factor * Compute<T>(x[i])); }
};

void run(const Tensor& x, const Tensor& y, double factor, bool add) {
  dispatch(x.dtype(), [&]<class T>() {
    map(x.device(), x.size(), Scaled<T>{x.data<T>(), y.data<T>(), Compute<T>(factor), add});
  });
}

}  // namespace

Tensor scale(const Tensor& x, double factor) {
  const OpRange range("scale");
  Tensor y = Tensor::like(x);
  count_kernel({x}, {y});
  run(x, y, factor, false);
  record("scale", y, {x}, [x, factor](const Tensor& dy) {
    auto [dx, beta] = into(x);
    count_kernel({dy}, {Into{dx, beta}});
    run(dy, dx, factor, beta != 0);
  });
  return y;
}
