// performer_features: y = exp(x W^T - |x|^2 / 2) / sqrt(m): [B, T, e], [m, e] -> [B, T, m]. Positive features whose products estimate
// the exponential of q k (Choromanski et al. 2021). The exponent is never stored in less than f32.
#include "engine/blas.h"
#include "engine/map.h"
#include "engine/math.h"
#include "engine/ops.h"
#include "engine/profile.h"

namespace {

template <class T> struct Forward {
  const T* x;
  const Compute<T>* products;   // x W^T
  T* y;
  int64_t columns, features;
  Compute<T> factor;
  template <class Team> HD void operator()(int64_t row, const Team& team) const {
    using C = Compute<T>;
    const T* in = x + row * columns;
    const C* product = products + row * features;
    T* out = y + row * features;
    const C half = team.template sum<C>(columns, [&](int64_t j) { return C(in[j]) * C(in[j]); }) / 2, scale = factor;
    team.each(features, [&](int64_t j) { out[j] = T(scale * fast_exp(product[j] - half)); });
  }
};

template <class T> struct Slope {   // the gradient of the exponent, ds = dy y
  const T *y, *dy;
  Compute<T>* ds;
  HD void operator()(int64_t i) const { ds[i] = Compute<T>(dy[i]) * Compute<T>(y[i]); }
};

template <class T> struct Backward {   // dx = ds W - x sum(ds)
  const T* x;
  const Compute<T>*ds, *products;   // ds, ds W
  T* dx;
  bool add;
  int64_t columns, features;
  template <class Team> HD void operator()(int64_t row, const Team& team) const {
    using C = Compute<T>;
    const C *d = ds + row * features, *product = products + row * columns;
    const T* in = x + row * columns;
    T* out = dx + row * columns;
    const bool keep_old = add;
    const C sum = team.template sum<C>(features, [&](int64_t j) { return d[j]; });
    team.each(columns, [&](int64_t j) {
      const C old = keep_old ? C(out[j]) : C(0);
      out[j] = T(old + product[j] - C(in[j]) * sum);
    });
  }
};

}  // namespace

Tensor performer_features(const Tensor& x, const Tensor& w) {
  const OpRange range("performer_features");
  check(x.shape().rank() == 3 && w.shape().rank() == 2 && x.dim(2) == w.dim(1),
        "[performer_features] [B, T, e] and [m, e] expected, given ", x.shape(), " and ", w.shape());
  const int64_t rows = x.rows(), columns = x.dim(2), features = w.dim(0);
  const Tensor wide_w = computed(w, x.dtype());
  const Tensor products = Tensor::empty({rows, features}, wide_w.dtype(), x.device());
  gemm({.transpose_b = true, .m = rows, .n = features, .k = columns}, x, wide_w, products);
  Tensor y = Tensor::empty({x.dim(0), x.dim(1), features}, x.dtype(), x.device());
  count_kernel({x, products}, {y});
  dispatch(x.dtype(), [&]<class T>() {
    using C = Compute<T>;
    const C factor = C(1 / std::sqrt(double(features)));
    map_rows(x.device(), rows, Forward<T>{x.data<T>(), products.data<C>(), y.data<T>(), columns, features, factor});
  });
  record("performer_features", y, {x, w}, [=, saved = y.detached()](const Tensor& dy) {
    const Tensor ds = Tensor::empty({rows, features}, wide_w.dtype(), x.device());
    count_kernel({saved, dy}, {ds});
    dispatch(x.dtype(), [&]<class T>() {
      using C = Compute<T>;
      map(x.device(), dy.size(), Slope<T>{saved.data<T>(), dy.data<T>(), ds.data<C>()});
      if (!x.wants_grad()) return;
      const Tensor back = Tensor::empty({rows, columns}, ds.dtype(), x.device());
      gemm({.m = rows, .n = columns, .k = features}, ds, wide_w, back);
      auto target = into(x);
      count_kernel({x, ds, back}, {target});
      map_rows(x.device(), rows,
               Backward<T>{x.data<T>(), ds.data<C>(), back.data<C>(), target.grad.data<T>(), target.beta != 0, columns, features});
    });
    if (!w.wants_grad()) return;
    auto [dw, beta] = into(w);
    gemm({.transpose_a = true, .m = features, .n = columns, .k = rows, .beta = beta}, ds, x, dw);
  });
  return y;
}
