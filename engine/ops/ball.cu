// ball: y = x / max(1, RMS(x) / radius) over the last dimension: the nearest point of the ball |y| <= radius sqrt(D). Lipschitz constant 1.
#include "engine/map.h"
#include "engine/ops.h"
#include "engine/profile.h"

namespace {

// Of the squares of a row: what it is multiplied by to lie on the sphere, and whether it has to be.
template <class C> struct Shrink {
  C radius;
  int64_t columns;
  HD bool outside(C squares) const { return squares > radius * radius * C(columns); }
  HD C factor(C squares) const { return outside(squares) ? radius * C(sqrt(C(columns) / squares)) : C(1); }
};

template <class T> struct Forward {
  const T* x;
  T* y;
  int64_t columns;
  Shrink<Compute<T>> shrink;
  template <class Team> HD void operator()(int64_t row, const Team& team) const {
    using C = Compute<T>;
    const T* in = x + row * columns;
    T* out = y + row * columns;
    const C squares = team.template sum<C>(columns, [&](int64_t j) { return C(in[j]) * C(in[j]); });
    const C factor = shrink.factor(squares);
    team.each(columns, [&](int64_t j) { out[j] = T(C(in[j]) * factor); });
  }
};

template <class T> struct Backward {   // dx = dy inside the ball; outside factor (dy - x <x, dy> / |x|^2)
  const T *x, *dy;
  T* dx;
  bool add;
  int64_t columns;
  Shrink<Compute<T>> shrink;
  template <class Team> HD void operator()(int64_t row, const Team& team) const {
    using C = Compute<T>;
    const T *in = x + row * columns, *g = dy + row * columns;
    T* out = dx + row * columns;
    const C squares = team.template sum<C>(columns, [&](int64_t j) { return C(in[j]) * C(in[j]); });
    const C dot = team.template sum<C>(columns, [&](int64_t j) { return C(in[j]) * C(g[j]); });
    const C factor = shrink.factor(squares), back = shrink.outside(squares) ? dot / squares : C(0);
    const bool keep_old = add;
    team.each(columns, [&](int64_t j) {
      const C old = out[j];
      out[j] = T((keep_old ? old : C(0)) + factor * (C(g[j]) - C(in[j]) * back));
    });
  }
};

}  // namespace

Tensor ball(const Tensor& x, double radius) {
  const OpRange range("ball");
  check(radius > 0, "[ball] the radius must be positive, given ", radius);
  const int64_t columns = x.dim(-1);
  Tensor y = Tensor::like(x);
  count_kernel({x}, {y});
  dispatch(x.dtype(), [&]<class T>() {
    map_rows(x.device(), x.rows(), Forward<T>{x.data<T>(), y.data<T>(), columns, {Compute<T>(radius), columns}});
  });
  record("ball", y, {x}, [x, columns, radius](const Tensor& dy) {
    const Into target = into(x);
    count_kernel({x, dy}, {target});
    dispatch(x.dtype(), [&]<class T>() {
      map_rows(x.device(), x.rows(), Backward<T>{x.data<T>(), dy.data<T>(), target.grad.data<T>(), target.beta != 0, columns,
                                                 {Compute<T>(radius), columns}});
    });
  });
  return y;
}
