// multiply: y = a * b, element by element.
#include "engine/map.h"
#include "engine/ops.h"
#include "engine/profile.h"

namespace {

template <class T> struct Forward {
  const T *a, *b;
  T* y;
  HD void operator()(int64_t i) const { y[i] = T(Compute<T>(a[i]) * Compute<T>(b[i])); }
};

template <class T> struct Backward {   // towards one factor: d += dy * other
  const T *other, *dy;
  T* d;
  bool add;
  HD void operator()(int64_t i) const {
    d[i] = T((add ? Compute<T>(d[i]) : Compute<T>(0)) + Compute<T>(dy[i]) * Compute<T>(other[i]));
  }
};

void back(const Tensor& dy, const Tensor& other, const Tensor& x) {
  if (!x.wants_grad()) return;
  auto [grad, beta] = into(x);
  count_kernel({dy, other}, {Into{grad, beta}});
  dispatch(dy.dtype(), [&]<class T>() {
    map(dy.device(), dy.size(), Backward<T>{other.data<T>(), dy.data<T>(), grad.template data<T>(), beta != 0});
  });
}

}  // namespace

Tensor multiply(const Tensor& a, const Tensor& b) {
  const OpRange range("multiply");
  check(a.shape() == b.shape() && a.dtype() == b.dtype(), "[multiply] shapes must agree, given ", a.shape(), " and ", b.shape());
  Tensor y = Tensor::like(a);
  count_kernel({a, b}, {y});
  dispatch(a.dtype(), [&]<class T>() { map(a.device(), a.size(), Forward<T>{a.data<T>(), b.data<T>(), y.data<T>()}); });
  record("multiply", y, {a, b}, [a, b](const Tensor& dy) {
    back(dy, b, a);
    back(dy, a, b);
  });
  return y;
}
