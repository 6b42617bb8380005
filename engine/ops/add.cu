// add: y = a + b, element by element.
#include "engine/map.h"
#include "engine/ops.h"
#include "engine/profile.h"

namespace {

struct Forward {
  template <class C> HD C operator()(C a, C b) const { return a + b; }
};

}  // namespace

Tensor add(const Tensor& a, const Tensor& b) {
  const OpRange range("add");
  check(a.shape() == b.shape() && a.dtype() == b.dtype(), "[add] shapes must agree, given ", a.shape(), " and ", b.shape());
  Tensor y = Tensor::like(a);
  count_kernel({a, b}, {y});
  dispatch(a.dtype(), [&]<class T>() { map_values(a.device(), a.size(), y.data<T>(), false, Forward{}, a.data<T>(), b.data<T>()); });
  record("add", y, {a, b}, [a, b](const Tensor& dy) {
    add_to_gradient(dy, b);
    pass_on(dy, a);
  });
  return y;
}
