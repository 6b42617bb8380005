// add: y = a + b, element by element.
#include "engine/map.h"
#include "engine/ops.h"
#include "engine/profile.h"

namespace {

template <class T> struct Forward {
  const T *a, *b;
  T* y;
  HD void operator()(int64_t i) const { y[i] = T(Compute<T>(a[i]) + Compute<T>(b[i])); }
};

}  // namespace

Tensor add(const Tensor& a, const Tensor& b) {
  const OpRange range("add");
  check(a.shape() == b.shape() && a.dtype() == b.dtype(), "[add] shapes must agree, given ", a.shape(), " and ", b.shape());
  Tensor y = Tensor::like(a);
  count_kernel({a, b}, {y});
  dispatch(a.dtype(), [&]<class T>() { map(a.device(), a.size(), Forward<T>{a.data<T>(), b.data<T>(), y.data<T>()}); });
  record("add", y, {a, b}, [a, b](const Tensor& dy) {
    add_to_gradient(dy, b);
    pass_on(dy, a);
  });
  return y;
}
