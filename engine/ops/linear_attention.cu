// linear_attention: y_t = q_t S / (q_t . z + eps) with S = sum_i k_i v_i^T and z = sum_i k_i: attention whose cost grows with T, not T^2.
// q, k [B, T, m], v [B, T, e] -> [B, T, e].
#include "engine/blas.h"
#include "engine/map.h"
#include "engine/ops.h"
#include "engine/profile.h"

namespace {

// Sums over the tokens of each sample: [B, T, n] -> [B, n], each token times its factor if there are factors.
template <class T> struct TokenSums {
  const T* x;
  const Compute<T>* factor;   // [B, T] or null
  Compute<T>* sums;
  int64_t tokens, columns;
  template <class Team> HD void operator()(int64_t sample, const Team& team) const {
    using C = Compute<T>;
    C* out = sums + sample * columns;
    team.each(columns, [&](int64_t j) { out[j] = 0; });
    for (int64_t t = sample * tokens; t < (sample + 1) * tokens; t++) {
      const T* in = x + t * columns;
      const C f = factor ? factor[t] : C(1);
      team.each(columns, [&](int64_t j) { out[j] += f * C(in[j]); });
    }
  }
};

template <class T> struct Divide {   // y = q S / (q . z + eps) where q S stands, keeping the inverse
  const T* q;
  const Compute<T>* z;
  Compute<T>*inverse, *y;
  int64_t tokens, features, columns;
  Compute<T> eps;
  template <class Team> HD void operator()(int64_t row, const Team& team) const {
    using C = Compute<T>;
    const T* query = q + row * features;
    const C* sum = z + row / tokens * features;
    C* out = y + row * columns;
    const C one_over = C(1) / (team.template sum<C>(features, [&](int64_t j) { return C(query[j]) * sum[j]; }) + eps);
    if (team.leads()) inverse[row] = one_over;
    team.each(columns, [&](int64_t j) { out[j] *= one_over; });
  }
};

template <class T> struct DivideBack {   // of y = n / d: dn = dy / d, dd = -<dy, y> / d
  const T* dy;
  const Compute<T>*y, *inverse;
  Compute<T>*dn, *dd;
  int64_t columns;
  template <class Team> HD void operator()(int64_t row, const Team& team) const {
    using C = Compute<T>;
    const T* g = dy + row * columns;
    const C *out = y + row * columns, one_over = inverse[row];
    C* to = dn + row * columns;
    const C along = team.template sum<C>(columns, [&](int64_t j) { return C(g[j]) * out[j]; });
    if (team.leads()) dd[row] = -along * one_over;
    team.each(columns, [&](int64_t j) { to[j] = C(g[j]) * one_over; });
  }
};

// dx (+)= products + factor vector, the factor of the token and the vector of the sample: what q and k get.
template <class T> struct AddBack {
  const Compute<T>*products, *factor, *vector;   // factor may be null: 1
  T* dx;
  bool add;
  int64_t tokens, features;
  template <class Team> HD void operator()(int64_t row, const Team& team) const {
    using C = Compute<T>;
    const C *product = products + row * features, *v = vector + row / tokens * features;
    const C f = factor ? factor[row] : C(1);
    T* out = dx + row * features;
    const bool keep_old = add;
    team.each(features, [&](int64_t j) {
      const C old = keep_old ? C(out[j]) : C(0);
      out[j] = T(old + product[j] + f * v[j]);
    });
  }
};

// c_b = op(a_b) op(b_b) for each sample b, from tensors [B, ., .].
void products(Gemm g, const Tensor& a, const Tensor& b, const Tensor& c) {
  for (int64_t i = 0; i < a.dim(0); i++) gemm(g, a.slice(i, 1), b.slice(i, 1), c.slice(i, 1));
}

Tensor token_sums(const Tensor& x, const Tensor& factor, DType wide) {
  const Tensor sums = Tensor::empty({x.dim(0), x.dim(2)}, wide, x.device());
  count_kernel({x, factor}, {sums});
  dispatch(x.dtype(), [&]<class T>() {
    using C = Compute<T>;
    map_rows(x.device(), x.dim(0), TokenSums<T>{x.data<T>(), factor ? factor.data<C>() : nullptr, sums.data<C>(), x.dim(1), x.dim(2)});
  });
  return sums;
}

void add_back(const Tensor& x, const Tensor& products, const Tensor& factor, const Tensor& vector) {
  auto target = into(x);
  count_kernel({products, factor, vector}, {target});
  dispatch(x.dtype(), [&]<class T>() {
    using C = Compute<T>;
    map_rows(x.device(), x.rows(), AddBack<T>{products.data<C>(), factor ? factor.data<C>() : nullptr, vector.data<C>(),
                                              target.grad.data<T>(), target.beta != 0, x.dim(1), x.dim(2)});
  });
}

// What a forward leaves behind; y in the computing type, for dq and dk are small differences of large numbers.
struct Kept {
  Tensor q, k, v, y, s, z, inverse;
};

void backward(const Kept& kept, const Tensor& dy) {
  const auto& [q, k, v, y, s, z, inverse] = kept;
  const int64_t batch = q.dim(0), tokens = q.dim(1), m = q.dim(2), e = v.dim(2);
  const Tensor dn = Tensor::empty({batch, tokens, e}, s.dtype(), q.device()), dd = Tensor::empty({batch, tokens}, s.dtype(), q.device());
  count_kernel({dy, y, inverse}, {dn, dd});
  dispatch(q.dtype(), [&]<class T>() {
    using C = Compute<T>;
    map_rows(q.device(), q.rows(), DivideBack<T>{dy.data<T>(), y.data<C>(), inverse.data<C>(), dn.data<C>(), dd.data<C>(), e});
  });
  const Tensor wide = Tensor::empty({batch, tokens, m}, s.dtype(), q.device());
  if (q.wants_grad()) {   // dq = dn S^T + dd z
    products({.transpose_b = true, .m = tokens, .n = m, .k = e}, dn, s, wide);
    add_back(q, wide, dd, z);
  }
  if (!k.wants_grad() && !v.wants_grad()) return;
  const Tensor ds = Tensor::like(s);   // q^T dn
  products({.transpose_a = true, .m = m, .n = e, .k = tokens}, q, dn, ds);
  if (k.wants_grad()) {   // dk = v dS^T + sum_t dd_t q_t
    products({.transpose_b = true, .m = tokens, .n = m, .k = e}, v, ds, wide);
    add_back(k, wide, {}, token_sums(q, dd, s.dtype()));
  }
  if (v.wants_grad()) {   // dv = k dS
    auto target = into(v);
    products({.m = tokens, .n = e, .k = m, .beta = target.beta}, k, ds, target.grad);
  }
}

}  // namespace

Tensor linear_attention(const Tensor& q, const Tensor& k, const Tensor& v, double eps) {
  const OpRange range("linear_attention");
  check(q.shape().rank() == 3 && q.shape() == k.shape() && v.shape().rank() == 3 && v.dim(0) == q.dim(0) && v.dim(1) == q.dim(1),
        "[linear_attention] q and k [B, T, m], v [B, T, e] expected, given ", q.shape(), ", ", k.shape(), ", ", v.shape());
  check(q.dtype() == k.dtype() && q.dtype() == v.dtype(), "[linear_attention] q, k and v must be of one type");
  const int64_t batch = q.dim(0), tokens = q.dim(1), m = q.dim(2), e = v.dim(2);
  const DType wide = q.dtype() == DType::f64 ? DType::f64 : DType::f32;
  const Tensor s = Tensor::empty({batch, m, e}, wide, q.device()), wide_y = Tensor::empty({batch, tokens, e}, wide, q.device());
  const Tensor z = token_sums(k, {}, wide), inverse = Tensor::empty({batch, tokens}, wide, q.device());
  products({.transpose_a = true, .m = m, .n = e, .k = tokens}, k, v, s);
  products({.m = tokens, .n = e, .k = m}, q, s, wide_y);
  count_kernel({q, z, wide_y}, {inverse, wide_y});
  dispatch(q.dtype(), [&]<class T>() {
    using C = Compute<T>;
    map_rows(q.device(), q.rows(), Divide<T>{q.data<T>(), z.data<C>(), inverse.data<C>(), wide_y.data<C>(), tokens, m, e, C(eps)});
  });
  Tensor y = wide_y.to(q.dtype());
  if (y.dtype() != wide) count_kernel({wide_y}, {y});
  record("linear_attention", y, {q, k, v}, [kept = Kept{q, k, v, wide_y, s, z, inverse}](const Tensor& dy) { backward(kept, dy); });
  return y;
}
