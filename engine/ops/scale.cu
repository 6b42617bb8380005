// scale: y = factor * x.
#include "engine/map.h"
#include "engine/ops.h"
#include "engine/profile.h"

namespace {

template <class C> struct Scaled {
  C factor;
  HD C operator()(C x) const { return factor * x; }
};

void run(const Tensor& x, const Tensor& y, double factor, bool add) {
  dispatch(x.dtype(), [&]<class T>() {
    map_values(x.device(), x.size(), y.data<T>(), add, Scaled<Compute<T>>{Compute<T>(factor)}, x.data<T>());
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
