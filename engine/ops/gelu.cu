// gelu: y = x Phi(x), with Phi the normal distribution function (the erf form, PyTorch's default).
#include "engine/map.h"
#include "engine/math.h"
#include "engine/ops.h"
#include "engine/profile.h"

namespace {

template <class T> struct Forward {
  const T* x;
  T* y;
  HD void operator()(int64_t i) const { y[i] = T(gelu_value(Compute<T>(x[i]))); }
};

template <class T> struct Backward {
  const T *x, *dy;
  T* dx;
  bool add;
  HD void operator()(int64_t i) const {
    const Compute<T> g = Compute<T>(dy[i]) * gelu_slope(Compute<T>(x[i]));
    dx[i] = T((add ? Compute<T>(dx[i]) : Compute<T>(0)) + g);
  }
};

}  // namespace

Tensor gelu(const Tensor& x) {
  const OpRange range("gelu");
  Tensor y = Tensor::like(x);
  count_kernel({x}, {y});
  dispatch(x.dtype(), [&]<class T>() { map(x.device(), x.size(), Forward<T>{x.data<T>(), y.data<T>()}); });
  record("gelu", y, {x}, [x](const Tensor& dy) {
    auto target = into(x);
    count_kernel({x, dy}, {target});
    dispatch(x.dtype(), [&]<class T>() {
      map(x.device(), x.size(), Backward<T>{x.data<T>(), dy.data<T>(), target.grad.data<T>(), target.beta != 0});
    });
  });
  return y;
}
