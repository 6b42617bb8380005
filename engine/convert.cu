// convert.cu: numbers in another type, tensors of one number, and sums into a gradient, on the device that they belong to.
#include "engine/map.h"
#include "engine/profile.h"

namespace {

template <class T> struct Fill {
  T* to;
  T value;
  HD void operator()(int64_t i) const { to[i] = value; }
};

}  // namespace

Tensor Tensor::to(DType dtype) const {
  if (dtype == dtype_) return detached();
  Tensor t = empty(shape_, dtype, device_);
  dispatch(dtype_, [&]<class S>() {
    dispatch(dtype, [&]<class T>() { map_values(device_, size(), t.data<T>(), false, Same{}, data<S>()); });
  });
  return t;
}

Tensor Tensor::full(const Shape& shape, double value, DType dtype, Device device) {
  Tensor t = empty(shape, dtype, device);
  dispatch(dtype, [&]<class T>() { map(device, t.size(), Fill<T>{t.data<T>(), T(value)}); });
  return t;
}

void add_to_gradient(const Tensor& dy, const Tensor& x) {
  if (!x.wants_grad()) return;
  auto [grad, beta] = into(x);
  count_kernel({dy}, {Into{grad, beta}});
  dispatch(dy.dtype(), [&]<class From>() {
    dispatch(grad.dtype(), [&]<class To>() {
      map_values(grad.device(), grad.size(), grad.data<To>(), beta != 0, Same{}, dy.data<From>());
    });
  });
}
