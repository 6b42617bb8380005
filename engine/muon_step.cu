// muon_step.cu: momentum, Newton-Schulz by five or more times three products, and the move.
#include "engine/muon_step.h"

#include "engine/blas.h"
#include "engine/flat.h"
#include "engine/map.h"

namespace {

HD bool finite(float x) { return x - x == 0; }

template <class T> struct Momentum {
  const T* g;
  T *m, *u;
  const float* numbers;
  bool nesterov;
  HD void operator()(int64_t i) const {
    if (!finite(numbers[step_grad_norm])) return;
    const T mu = numbers[step_momentum], next = mu * m[i] + (1 - mu) * g[i];
    m[i] = next;
    u[i] = nesterov ? g[i] + mu * (next - g[i]) : next;
  }
};

template <class T> struct RowSquares {
  const T* u;
  int64_t columns;
  template <class Team> HD T operator()(int64_t row, const Team& team) const {
    const T* x = u + row * columns;
    return team.template sum<T>(columns, [&](int64_t j) { return x[j] * x[j]; });
  }
};

template <class T, class D> struct Unit {   // x = u / |u|_F; zero stays zero
  const T *u, *squares;
  D* x;
  HD void operator()(int64_t i) const { x[i] = D(*squares > 0 ? u[i] / T(sqrt(*squares)) : T(0)); }
};

template <class D> struct AddDiagonal {
  D* a;
  int64_t n;
  Compute<D> value;
  HD void operator()(int64_t i) const { a[i * n + i] = D(Compute<D>(a[i * n + i]) + value); }
};

template <class T, class D> struct Move {
  T* w;
  const D* direction;
  const float* numbers;
  T scale, decay;
  HD void operator()(int64_t i) const {
    if (!finite(numbers[step_grad_norm])) return;
    const T lr = numbers[step_matrix_lr];
    w[i] = (1 - lr * decay) * w[i] - lr * scale * T(Compute<D>(direction[i]));
  }
};

template <class T> struct MoveRow {
  const T* g;
  T *w, *m;
  const float* numbers;
  int64_t columns;
  double scale, decay;
  template <class Team> HD void operator()(int64_t r, const Team& team) const {
    if (!finite(numbers[step_grad_norm])) return;
    const T* from = g + r * columns;
    const T mu = numbers[step_momentum], lr = numbers[step_matrix_lr];
    T *row = w + r * columns, *mean = m + r * columns;
    team.each(columns, [&](int64_t j) { mean[j] = mu * mean[j] + (1 - mu) * from[j]; });
    const double rms = sqrt(team.template sum<double>(columns, [&](int64_t j) { return double(mean[j]) * double(mean[j]); }) / double(columns));
    const T keep = T(1 - lr * decay), rate = rms > 0 ? T(lr * scale / rms) : T(0);
    team.each(columns, [&](int64_t j) { row[j] = keep * row[j] - rate * mean[j]; });
  }
};

// x <- (a I + b A + c A^2) x with A = x x^T, from the right with A = x^T x where the columns are fewer.
template <class D> Tensor iterated(Tensor x, const Quintics& quintics) {
  const int64_t rows = x.dim(0), columns = x.dim(1), small = std::min(rows, columns);
  const bool wide = rows <= columns;
  const Tensor a = Tensor::empty({small, small}, x.dtype(), x.device()), polynomial = Tensor::like(a);
  Tensor next = Tensor::like(x);
  for (const auto& [first, third, fifth] : quintics) {
    gemm({.transpose_a = !wide, .transpose_b = wide, .m = small, .n = small, .k = std::max(rows, columns)}, x, x, a);
    polynomial.copy_from(a);
    gemm({.m = small, .n = small, .k = small, .alpha = fifth, .beta = third}, a, a, polynomial);
    map(x.device(), small, AddDiagonal<D>{polynomial.data<D>(), small, Compute<D>(first)});
    gemm({.m = rows, .n = columns, .k = small}, wide ? polynomial : x, wide ? x : polynomial, next);
    std::swap(x, next);
  }
  return x;
}

template <class T, class D> Tensor orthogonal_in(const Tensor& u, const Quintics& quintics) {
  const int64_t rows = u.dim(0), columns = u.dim(1);
  const Tensor x = Tensor::empty(u.shape(), dtype_of<D>, u.device());
  const Tensor squares = sum_rows<T>(u.device(), rows, columns, RowSquares<T>{u.data<T>(), columns});
  map(u.device(), rows * columns, Unit<T, D>{u.data<T>(), squares.data<T>(), x.data<D>()});
  return iterated<D>(x, quintics);
}

template <class T, class D> void move(const MuonStep& s, const Quintics& quintics, const Tensor& numbers) {
  const Device device = s.weights.device();
  const int64_t n = s.weights.size();
  const float* of_step = numbers.data<float>();
  const Tensor u = Tensor::zeros(s.weights.shape(), s.weights.dtype(), device);
  map(device, n, Momentum<T>{s.gradient.data<T>(), s.momentum.data<T>(), u.data<T>(), of_step, s.nesterov});
  const Tensor direction = orthogonal_in<T, D>(u, quintics);
  map(device, n, Move<T, D>{s.weights.data<T>(), direction.data<D>(), of_step, T(s.scale), T(s.decay)});
}

}  // namespace

void muon_step(const MuonStep& s, const Quintics& quintics, const Tensor& numbers) {
  check(s.weights.shape().rank() == 2 && s.gradient.size() == s.weights.size() && s.momentum.size() == s.weights.size(), "[muon_step] ",
        s.weights.shape(), ", gradient ", s.gradient.shape(), ", momentum ", s.momentum.shape());
  if (s.weights.dtype() == DType::f64) move<double, double>(s, quintics, numbers);
  else move<float, bf16>(s, quintics, numbers);
}

Tensor orthogonal(const Tensor& x, const Quintics& quintics) {
  check(x.shape().rank() == 2, "[orthogonal] a matrix expected, given ", x.shape());
  return x.dtype() == DType::f64 ? orthogonal_in<double, double>(x, quintics) : orthogonal_in<float, float>(x, quintics);
}

void muon_rows(const MuonStep& s, const Tensor& numbers) {
  const int64_t rows = s.weights.dim(0), columns = s.weights.dim(1);
  const auto run = [&]<class T>() {
    map_rows(s.weights.device(), rows,
             MoveRow<T>{s.gradient.data<T>(), s.weights.data<T>(), s.momentum.data<T>(), numbers.data<float>(), columns, s.scale, s.decay});
  };
  if (s.weights.dtype() == DType::f64) run.template operator()<double>();
  else run.template operator()<float>();
}
