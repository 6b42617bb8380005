// concat_channels: y = (a, b) along the channels: [..., A], [..., B] -> [..., A + B].
#include "engine/map.h"
#include "engine/ops.h"
#include "engine/profile.h"

namespace {

template <class T> struct Forward {
  const T *a, *b;
  T* y;
  int64_t in_a, in_b;   // channels
  template <class Team> HD void operator()(int64_t row, const Team& team) const {
    const T *from_a = a + row * in_a, *from_b = b + row * in_b;
    T* out = y + row * (in_a + in_b);
    team.each(in_a, [&](int64_t j) { out[j] = from_a[j]; });
    team.each(in_b, [&](int64_t j) { out[in_a + j] = from_b[j]; });
  }
};

template <class T> struct Backward {   // one input's part of dy
  const T* dy;
  T* dx;
  bool add;
  int64_t columns, begin, count;   // of dy, and where the part lies in it
  template <class Team> HD void operator()(int64_t row, const Team& team) const {
    using C = Compute<T>;
    const T* in = dy + row * columns + begin;
    T* out = dx + row * count;
    team.each(count, [&](int64_t j) { out[j] = T((add ? C(out[j]) : C(0)) + C(in[j])); });
  }
};

void add_part(const Tensor& dy, const Tensor& x, int64_t begin) {
  if (!x.wants_grad()) return;
  auto target = into(x);
  count_kernel({x}, {target});
  dispatch(dy.dtype(), [&]<class T>() {
    map_rows(dy.device(), dy.rows(), Backward<T>{dy.data<T>(), target.grad.data<T>(), target.beta != 0, dy.dim(-1), begin, x.dim(-1)});
  });
}

}  // namespace

Tensor concat_channels(const Tensor& a, const Tensor& b) {
  const OpRange range("concat_channels");
  std::vector<int64_t> dims = a.shape().dims(), of_b = b.shape().dims();
  check(!dims.empty() && dims.size() == of_b.size() && std::equal(dims.begin(), dims.end() - 1, of_b.begin()) && a.dtype() == b.dtype(),
        "[concat_channels] all but the last dimension must agree, given ", a.shape(), " and ", b.shape());
  dims.back() += of_b.back();
  Tensor y = Tensor::empty(Shape(dims), a.dtype(), a.device());
  count_kernel({a, b}, {y});
  dispatch(a.dtype(), [&]<class T>() {
    map_rows(a.device(), a.rows(), Forward<T>{a.data<T>(), b.data<T>(), y.data<T>(), a.dim(-1), b.dim(-1)});
  });
  record("concat_channels", y, {a, b}, [a, b](const Tensor& dy) {
    add_part(dy, a, 0);
    add_part(dy, b, a.dim(-1));
  });
  return y;
}
