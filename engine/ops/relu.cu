// relu: y = max(x, 0). NaN stays NaN, so that nothing hides it.
#include "engine/map.h"
#include "engine/ops.h"
#include "engine/profile.h"

namespace {

struct Forward {
  template <class C> HD C operator()(C x) const { return x < 0 ? C(0) : x; }
};

struct Backward {   // dx = dy where x > 0
  template <class C> HD C operator()(C x, C dy) const { return x > 0 ? dy : C(0); }
};

}  // namespace

Tensor relu(const Tensor& x) {
  const OpRange range("relu");
  Tensor y = Tensor::like(x);
  count_kernel({x}, {y});
  dispatch(x.dtype(), [&]<class T>() { map_values(x.device(), x.size(), y.data<T>(), false, Forward{}, x.data<T>()); });
  record("relu", y, {x}, [x](const Tensor& dy) {
    auto target = into(x);
    count_kernel({x, dy}, {target});
    dispatch(x.dtype(), [&]<class T>() {
      map_values(x.device(), x.size(), target.grad.data<T>(), target.beta != 0, Backward{}, x.data<T>(), dy.data<T>());
    });
  });
  return y;
}
