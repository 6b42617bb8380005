// multiply: y = a * b, element by element.
#include "engine/map.h"
#include "engine/ops.h"
#include "engine/profile.h"

namespace {

struct Product {
  template <class C> HD C operator()(C a, C b) const { return a * b; }
};

// Towards one factor: dx += dy * other.
void back(const Tensor& dy, const Tensor& other, const Tensor& x) {
  if (!x.wants_grad()) return;
  auto [grad, beta] = into(x);
  count_kernel({dy, other}, {Into{grad, beta}});
  dispatch(dy.dtype(), [&]<class T>() {
    map_values(dy.device(), dy.size(), grad.template data<T>(), beta != 0, Product{}, dy.data<T>(), other.data<T>());
  });
}

}  // namespace

Tensor multiply(const Tensor& a, const Tensor& b) {
  const OpRange range("multiply");
  check(a.shape() == b.shape() && a.dtype() == b.dtype(), "[multiply] shapes must agree, given ", a.shape(), " and ", b.shape());
  Tensor y = Tensor::like(a);
  count_kernel({a, b}, {y});
  dispatch(a.dtype(), [&]<class T>() { map_values(a.device(), a.size(), y.data<T>(), false, Product{}, a.data<T>(), b.data<T>()); });
  record("multiply", y, {a, b}, [a, b](const Tensor& dy) {
    back(dy, b, a);
    back(dy, a, b);
  });
  return y;
}
