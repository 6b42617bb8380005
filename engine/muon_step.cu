// muon_step.cu: momentum, Newton-Schulz by five or more times three products, and the move, each a launch for all matrices.
#include "engine/muon_step.h"

#include "engine/flat.h"
#include "engine/launch_table.h"
#include "engine/map.h"
#include "engine/symmetric_products.h"

namespace {

HD bool finite(float x) { return x - x == 0; }

// A matrix is gone through in pieces, a team each. What is made of it on the way lies at `at` of buffers for all matrices.
constexpr int piece_size = 2048;

template <class T> struct MatrixJob {
  T *w, *m;
  const T* g;
  int64_t at;
  double scale;
  int size, first;
};
template <class T> using Matrices = LaunchTable<MatrixJob<T>>;

// The numbers of piece i: job, where it begins, how many they are.
template <class T> struct PieceOf {
  MatrixJob<T> job;
  int64_t begin, count;
  HD PieceOf(const Matrices<T>& matrices, int64_t i) : job(matrices.of(int(i))), begin((i - job.first) * piece_size) {
    count = job.size - begin < piece_size ? job.size - begin : piece_size;
  }
};

template <class T> struct Momentum {
  Matrices<T> matrices;
  T* momenta;
  const float* numbers;
  bool nesterov;
  template <class Team> HD void operator()(int64_t i, const Team& team) const {
    const PieceOf<T> p(matrices, i);
    const T* g = p.job.g + p.begin;
    T *m = p.job.m + p.begin, *u = momenta + p.job.at + p.begin;
    const bool moves = finite(numbers[step_grad_norm]);
    const T mu = numbers[step_momentum];
    team.each(p.count, [&](int64_t j) {
      const T next = moves ? mu * m[j] + (1 - mu) * g[j] : m[j];
      m[j] = next;
      u[j] = nesterov && moves ? g[j] + mu * (next - g[j]) : next;
    });
  }
};

template <class T> struct PieceSquares {
  Matrices<T> matrices;
  const T* momenta;
  T* squares;   // [pieces]
  template <class Team> HD void operator()(int64_t i, const Team& team) const {
    const PieceOf<T> p(matrices, i);
    const T* u = momenta + p.job.at + p.begin;
    const T sum = team.template sum<T>(p.count, [&](int64_t j) { return u[j] * u[j]; });
    if (team.leads()) squares[i] = sum;
  }
};

template <class T, class D> struct Unit {   // x = u / |u|_F; zero stays zero
  Matrices<T> matrices;
  const T *momenta, *squares;
  D* units;
  template <class Team> HD void operator()(int64_t i, const Team& team) const {
    const PieceOf<T> p(matrices, i);
    const T* u = momenta + p.job.at + p.begin;
    D* x = units + p.job.at + p.begin;
    const int64_t pieces = (p.job.size + piece_size - 1) / piece_size;
    const T square = team.template sum<T>(pieces, [&](int64_t j) { return squares[p.job.first + j]; }), norm = T(sqrt(square));
    team.each(p.count, [&](int64_t j) { x[j] = D(square > 0 ? u[j] / norm : T(0)); });
  }
};

template <class T, class D> struct Move {
  Matrices<T> matrices;
  const D* directions;
  const float* numbers;
  T decay;
  template <class Team> HD void operator()(int64_t i, const Team& team) const {
    if (!finite(numbers[step_grad_norm])) return;
    const PieceOf<T> p(matrices, i);
    const D* direction = directions + p.job.at + p.begin;
    T* w = p.job.w + p.begin;
    const T lr = numbers[step_matrix_lr], keep = 1 - lr * decay, rate = lr * T(p.job.scale);
    team.each(p.count, [&](int64_t j) { w[j] = keep * w[j] - rate * T(Compute<D>(direction[j])); });
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

// Matrices in one buffer, each from a line of 128 bytes on.
struct Packed {
  Tensor all;
  std::vector<Tensor> parts;
};
struct Layout {
  std::vector<Shape> shapes;
  std::vector<int64_t> at;
  int64_t size = 0;
  void add(const Shape& shape) {
    shapes.push_back(shape);
    at.push_back(size);
    size += (shape.size() + 63) / 64 * 64;
  }
  Packed room(DType dtype, Device device) const {
    Packed packed{Tensor::empty({size}, dtype, device), {}};
    for (size_t i = 0; i < at.size(); i++) packed.parts.push_back(packed.all.slice(at[i], shapes[i].size()).view(shapes[i]));
    return packed;
  }
};

// x <- (a I + b A + c A^2) x with A = x x^T, from the right with A = x^T x where the columns are fewer.
Tensor iterated(Packed x, const Layout& layout, const Quintics& quintics) {
  const DType dtype = x.all.dtype();
  const Device device = x.all.device();
  Layout squares;
  for (const Shape& shape : layout.shapes) squares.add({std::min(shape[0], shape[1]), std::min(shape[0], shape[1])});
  const Packed a = squares.room(dtype, device), polynomial = squares.room(dtype, device);
  Packed next = layout.room(dtype, device);
  for (const auto& [first, third, fifth] : quintics) {
    symmetric_products(x.parts, a.parts);
    symmetric_products(a.parts, polynomial.parts, {first, third, fifth});
    products_with_symmetric(polynomial.parts, x.parts, next.parts);
    std::swap(x, next);
  }
  return x.all;
}

// f(matrices) for all of them, a launch's worth at a time.
template <class T, class F> void for_matrices(const std::vector<MatrixJob<T>>& jobs, const F& f) {
  for_tables(jobs, [](const MatrixJob<T>& job) { return (job.size + piece_size - 1) / piece_size; }, f);
}

// msign of the numbers in `momenta`, in the type D.
template <class T, class D> Tensor orthogonal_in(const std::vector<MatrixJob<T>>& jobs, const Layout& layout, const Tensor& momenta, const Quintics& quintics) {
  const Device device = momenta.device();
  const Packed x = layout.room(dtype_of<D>, device);
  for_matrices(jobs, [&](const Matrices<T>& matrices) {
    const Tensor squares = Tensor::empty(Shape{int64_t(matrices.units)}, dtype_of<T>, device);
    map_rows(device, matrices.units, PieceSquares<T>{matrices, momenta.data<T>(), squares.data<T>()});
    map_rows(device, matrices.units, Unit<T, D>{matrices, momenta.data<T>(), squares.data<T>(), x.all.data<D>()});
  });
  return iterated(x, layout, quintics);
}

template <class T, class D> void move(const std::vector<MuonStep>& steps, const MuonRule& rule, const Quintics& quintics, const Tensor& numbers) {
  const Device device = numbers.device();
  const float* of_step = numbers.data<float>();
  Layout layout;
  std::vector<MatrixJob<T>> jobs;
  for (const MuonStep& s : steps) {
    layout.add(s.weights.shape());
    jobs.push_back({s.weights.data<T>(), s.momentum.data<T>(), s.gradient.data<T>(), layout.at.back(), s.scale, int(s.weights.size()), 0});
  }
  const Tensor momenta = Tensor::empty({layout.size}, dtype_of<T>, device);
  for_matrices(jobs, [&](const Matrices<T>& matrices) {
    map_rows(device, matrices.units, Momentum<T>{matrices, momenta.data<T>(), of_step, rule.nesterov});
  });
  const Tensor directions = orthogonal_in<T, D>(jobs, layout, momenta, quintics);
  for_matrices(jobs, [&](const Matrices<T>& matrices) {
    map_rows(device, matrices.units, Move<T, D>{matrices, directions.data<D>(), of_step, T(rule.decay)});
  });
}

template <class T> Tensor orthogonal_of(const Tensor& x, const Quintics& quintics) {
  Layout layout;
  layout.add(x.shape());
  const MatrixJob<T> job{.at = 0, .size = int(x.size())};
  return orthogonal_in<T, T>({job}, layout, x, quintics).slice(0, x.size()).view(x.shape());
}

}  // namespace

void muon_step(const std::vector<MuonStep>& steps, const MuonRule& rule, const Quintics& quintics, const Tensor& numbers) {
  if (steps.empty()) return;
  const DType dtype = steps[0].weights.dtype();
  for (const MuonStep& s : steps)
    check(s.weights.shape().rank() == 2 && s.gradient.size() == s.weights.size() && s.momentum.size() == s.weights.size() && s.weights.dtype() == dtype,
          "[muon_step] ", dtype, ": ", s.weights.shape(), ' ', s.weights.dtype(), ", gradient ", s.gradient.shape(), ", momentum ", s.momentum.shape());
  if (dtype == DType::f64) move<double, double>(steps, rule, quintics, numbers);
  else move<float, bf16>(steps, rule, quintics, numbers);
}

Tensor orthogonal(const Tensor& x, const Quintics& quintics) {
  check(x.shape().rank() == 2, "[orthogonal] a matrix expected, given ", x.shape());
  return x.dtype() == DType::f64 ? orthogonal_of<double>(x, quintics) : orthogonal_of<float>(x, quintics);
}

void muon_rows(const MuonStep& s, double decay, const Tensor& numbers) {
  const int64_t rows = s.weights.dim(0), columns = s.weights.dim(1);
  const auto run = [&]<class T>() {
    map_rows(s.weights.device(), rows,
             MoveRow<T>{s.gradient.data<T>(), s.weights.data<T>(), s.momentum.data<T>(), numbers.data<float>(), columns, s.scale, decay});
  };
  if (s.weights.dtype() == DType::f64) run.template operator()<double>();
  else run.template operator()<float>();
}
