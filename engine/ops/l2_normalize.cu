// l2_normalize: y = x / r over the last dimension, r = sqrt(|x|^2 + eps) (eps inside, LipsFormer's paper) or max(|x|, eps) (torch.nn.functional.normalize).
#include "engine/map.h"
#include "engine/ops.h"
#include "engine/profile.h"

namespace {

template <class C> struct Length {
  C eps;
  bool inside;
  HD C of(C squares) const {
    if (inside) return sqrt(squares + eps);
    const C norm = sqrt(squares);
    return norm > eps ? norm : eps;
  }
  // Whether the length moves with x; a clamped one does not.
  HD bool moves(C squares) const { return inside || sqrt(squares) > eps; }
};

template <class T> struct Forward {
  const T* x;
  T* y;
  int64_t columns;
  Length<Compute<T>> length;
  template <class Team> HD void operator()(int64_t row, const Team& team) const {
    using C = Compute<T>;
    const auto in = team.read(x + row * columns, columns);
    const C squares = team.template sum<C>(columns, [&](auto j) { return in[j] * in[j]; });
    const C inverse = C(1) / length.of(squares);
    team.write(y + row * columns, columns, [&](auto j) { return in[j] * inverse; });
  }
};

template <class T> struct Backward {   // dx = (dy - y <y, dy>) / r; only dy / r where the length is clamped
  const T *x, *dy;
  T* dx;
  bool add;
  int64_t columns;
  Length<Compute<T>> length;
  template <class Team> HD void operator()(int64_t row, const Team& team) const {
    using C = Compute<T>;
    const auto in = team.read(x + row * columns, columns);
    const auto g = team.read(dy + row * columns, columns);
    const C squares = team.template sum<C>(columns, [&](auto j) { return in[j] * in[j]; });
    const C along = team.template sum<C>(columns, [&](auto j) { return in[j] * g[j]; });
    const C inverse = C(1) / length.of(squares);
    const C back = length.moves(squares) ? along * inverse * inverse : C(0);
    team.update(dx + row * columns, columns, add, [&](auto j) { return (g[j] - in[j] * back) * inverse; });
  }
};

}  // namespace

Tensor l2_normalize(const Tensor& x, double eps, bool eps_inside) {
  const OpRange range("l2_normalize");
  Tensor y = Tensor::like(x);
  count_kernel({x}, {y});
  const int64_t columns = x.dim(-1);
  dispatch(x.dtype(), [&]<class T>() {
    map_rows<T>(x.device(), x.rows(), columns, Forward<T>{x.data<T>(), y.data<T>(), columns, {Compute<T>(eps), eps_inside}});
  });
  record("l2_normalize", y, {x}, [x, columns, eps, eps_inside](const Tensor& dy) {
    auto target = into(x);
    count_kernel({x, dy}, {target});
    dispatch(dy.dtype(), [&]<class T>() {
      map_rows<T>(dy.device(), dy.rows(), columns, Backward<T>{x.data<T>(), dy.data<T>(), target.grad.data<T>(), target.beta != 0, columns,
                                                   {Compute<T>(eps), eps_inside}});
    });
  });
  return y;
}
