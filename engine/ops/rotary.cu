// rotary: rotary positions (Su et al. 2021), halves rotated. In each head the pair (x_i, x_{i + half}) of token t turns by the angle
// t base^(-i / half); the `still` slowest of the half frequencies are zero. Backward turns the other way.
#include "engine/map.h"
#include "engine/ops.h"
#include "engine/profile.h"

namespace {

template <class T> struct Turn {
  const T* from;
  const Compute<T>*cosine, *sine;   // [T, half]
  T* to;
  bool add;
  int64_t tokens, half;
  int heads;
  Compute<T> direction;   // 1 forward, -1 backward
  template <class Team> HD void operator()(int64_t row, const Team& team) const {
    using C = Compute<T>;
    const C *c = cosine + row % tokens * half, *s = sine + row % tokens * half;
    const int64_t n = half;
    const C way = direction;
    const bool keep_old = add;
    for (int head = 0; head < heads; head++) {
      const T* in = from + (row * heads + head) * 2 * n;
      T* out = to + (row * heads + head) * 2 * n;
      team.each(n, [&](int64_t i) {
        const C a = in[i], b = in[n + i], turn = way * s[i];
        const C old_a = keep_old ? C(out[i]) : C(0), old_b = keep_old ? C(out[n + i]) : C(0);
        out[i] = T(old_a + a * c[i] - b * turn);
        out[n + i] = T(old_b + a * turn + b * c[i]);
      });
    }
  }
};

template <class C> struct Angles {
  C* table;
  int64_t tokens, half, still;
  double base;
  HD void operator()(int64_t at) const {
    const int64_t t = at / half, i = at % half;
    const double angle = i < half - still ? double(t) * pow(base, -double(i) / double(half)) : 0;
    table[at] = C(cos(angle));
    table[tokens * half + at] = C(sin(angle));
  }
};

// Cosines and sines of the angles, [2, T, half]; made where they are used, because a recorded step copies nothing from the host.
Tensor turn_table(int64_t tokens, int64_t half, double base, int still, DType dtype, Device device) {
  const Tensor table = Tensor::empty({2, tokens, half}, dtype == DType::f64 ? DType::f64 : DType::f32, device);
  const auto fill = [&]<class C>() { map(device, tokens * half, Angles<C>{table.data<C>(), tokens, half, still, base}); };
  if (dtype == DType::f64) fill.template operator()<double>();
  else fill.template operator()<float>();
  return table;
}

void turn(const Tensor& from, const Tensor& to, bool add, const Tensor& table, int heads, double direction) {
  const int64_t tokens = table.dim(1), half = table.dim(2);
  dispatch(from.dtype(), [&]<class T>() {
    using C = Compute<T>;
    const C* cosine = table.data<C>();
    map_rows(from.device(), from.rows(),
             Turn<T>{from.data<T>(), cosine, cosine + tokens * half, to.data<T>(), add, tokens, half, heads, C(direction)});
  });
}

}  // namespace

Tensor rotary(const Tensor& x, int heads, double base, int still) {
  const OpRange range("rotary");
  check(x.shape().rank() == 3 && heads > 0 && x.dim(2) % (2 * heads) == 0, "[rotary] x must be [B, T, heads * d] with an even d, given ",
        x.shape(), " for ", heads, " heads");
  const int64_t half = x.dim(2) / heads / 2;
  check(base > 0 && still >= 0 && still <= half, "[rotary] base ", base, ", ", still, " of ", half, " frequencies still");
  const Tensor table = turn_table(x.dim(1), half, base, still, x.dtype(), x.device());
  Tensor y = Tensor::like(x);
  count_kernel({x, table}, {y});
  turn(x, y, false, table, heads, 1);
  record("rotary", y, {x}, [x, table, heads](const Tensor& dy) {
    auto target = into(x);
    count_kernel({dy, table}, {target});
    turn(dy, target.grad, target.beta != 0, table, heads, -1);
  });
  return y;
}
