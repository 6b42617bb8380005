// relu: y = max(x, 0). NaN stays NaN, so that nothing hides it.
#include "engine/map.h"
#include "engine/ops.h"
#include "engine/profile.h"

namespace {

template <class T> struct Forward {
  const T* x;
  T* y;
  HD void operator()(int64_t i) const {
    const Compute<T> v = x[i];
    y[i] = T(v < 0 ? Compute<T>(0) : v);
  }
};

template <class T> struct Backward {   // dx = dy where x > 0
  const T *x, *dy;
  T* dx;
  bool add;
  HD void operator()(int64_t i) const {
    const Compute<T> g = Compute<T>(x[i]) > 0 ? Compute<T>(dy[i]) : Compute<T>(0);
    dx[i] = T((add ? Compute<T>(dx[i]) : Compute<T>(0)) + g);
  }
};

}  // namespace

Tensor relu(const Tensor& x) {
  const OpRange range("relu");
  Tensor y = Tensor::like(x);
  count_kernel({x}, {y});
  dispatch(x.dtype(), [&]<class T>() { map(x.device(), x.size(), Forward<T>{x.data<T>(), y.data<T>()}); });
  record("relu", y, {x}, [x](const Tensor& dy) {
    auto target = into(x);
    count_kernel({x, dy}, {target});
    dispatch(x.dtype(), [&]<class T>() {
      map(x.device(), x.size(), Backward<T>{x.data<T>(), dy.data<T>(), target.grad.data<T>(), target.beta != 0});
    });
  });
  return y;
}
