// gelu: y = x Phi(x), with Phi the normal distribution function (the erf form, PyTorch's default).
#include "engine/map.h"
#include "engine/math.h"
#include "engine/ops.h"
#include "engine/profile.h"

namespace {

struct Forward {
  template <class C> HD C operator()(C x) const { return gelu_value(x); }
};

struct Backward {
  template <class C> HD C operator()(C x, C dy) const { return dy * gelu_slope(x); }
};

}  // namespace

Tensor gelu(const Tensor& x) {
  const OpRange range("gelu");
  Tensor y = Tensor::like(x);
  count_kernel({x}, {y});
  dispatch(x.dtype(), [&]<class T>() { map_values(x.device(), x.size(), y.data<T>(), false, Forward{}, x.data<T>()); });
  record("gelu", y, {x}, [x](const Tensor& dy) {
    auto target = into(x);
    count_kernel({x, dy}, {target});
    dispatch(x.dtype(), [&]<class T>() {
      map_values(x.device(), x.size(), target.grad.data<T>(), target.beta != 0, Backward{}, x.data<T>(), dy.data<T>());
    });
  });
  return y;
}
