// map.h: one text for both devices. A functor says what happens to an element or a row; here it becomes a loop on the CPU and a
// kernel on CUDA.
//
//   map(device, n, f)                                    f(i)
//   map_rows(device, rows, f)                            f(row, team)
//   map_rows_reduce<C>(device, rows, columns, k, f)      f(row, team, sums): sums.add(which, column, value); returns [k, columns]
//
// A team shares one row: on the CPU it is one thread with vector lanes, on CUDA a warp. Sums over rows are made of chunks that
// depend on the number of rows only and are added in order, so the result does not depend on the number of threads.
#pragma once
#include <algorithm>
#include <limits>

#include "engine/autograd.h"
#include "engine/kernel.h"
#include "engine/profile.h"

struct CpuTeam {
  template <class F> void each(int64_t n, F&& f) const {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) f(i);
  }
  template <class C, class F> C sum(int64_t n, F&& f) const {
    C s = 0;
#pragma omp simd reduction(+ : s)
    for (int64_t i = 0; i < n; i++) s += f(i);
    return s;
  }
  template <class C, class F> C max(int64_t n, F&& f) const {
    C m = -std::numeric_limits<C>::infinity();
#pragma omp simd reduction(max : m)
    for (int64_t i = 0; i < n; i++) m = f(i) > m ? f(i) : m;
    return m;
  }
  bool leads() const { return true; }   // one member of the team writes what belongs to the whole row
};

struct WarpTeam {
  template <class F> DEVICE void each(int64_t n, F&& f) const {
    for (int64_t i = lane_id(); i < n; i += 32) f(i);
  }
  template <class C, class F> DEVICE C sum(int64_t n, F&& f) const {
    C s = 0;
    for (int64_t i = lane_id(); i < n; i += 32) s += f(i);
    return warp_sum(s);
  }
  template <class C, class F> DEVICE C max(int64_t n, F&& f) const {
    C m = -std::numeric_limits<C>::infinity();
    for (int64_t i = lane_id(); i < n; i += 32) m = f(i) > m ? f(i) : m;
    return warp_max(m);
  }
  DEVICE bool leads() const { return lane_id() == 0; }
};

// Private sums of a chunk of rows: k vectors of `columns`. A column always belongs to the same lane.
template <class C> struct ColumnSums {
  C* sums;
  int64_t columns;
  HD void add(int which, int64_t column, C value) const { sums[which * columns + column] += value; }
};

template <class F> KERNEL map_kernel(int64_t n, F f) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) f(i);
}

template <class F> KERNEL map_rows_kernel(int64_t rows, F f) {
  const int64_t row = int64_t(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  if (row < rows) f(row, WarpTeam{});
}

template <class C, class F>
KERNEL map_rows_reduce_kernel(int64_t rows, int64_t rows_a_chunk, int64_t columns, int k, F f, C* partial) {
  C* sums = dynamic_shared<C>();
  const int64_t n = k * columns;
  for (int64_t i = lane_id(); i < n; i += 32) sums[i] = 0;
  __syncwarp();
  const int64_t begin = blockIdx.x * rows_a_chunk;
  const int64_t end = begin + rows_a_chunk < rows ? begin + rows_a_chunk : rows;
  for (int64_t row = begin; row < end; row++) f(row, WarpTeam{}, ColumnSums<C>{sums, columns});
  __syncwarp();
  for (int64_t i = lane_id(); i < n; i += 32) partial[blockIdx.x * n + i] = sums[i];
}

template <class F> void map(Device device, int64_t n, const F& f) {
  if (n == 0 || dry_run()) return;
  if (device.kind == Device::cuda) {
    launch({dim3(unsigned((n + 255) / 256)), dim3(256)}, map_kernel<F>, n, f);
    return;
  }
  constexpr int64_t block = 8192;
#pragma omp parallel for schedule(static) if (n > 4 * block)
  for (int64_t begin = 0; begin < n; begin += block) {
    const F local = f;   // a copy that nothing aliases keeps its pointers in registers
    const int64_t end = std::min(n, begin + block);
#pragma GCC ivdep
    for (int64_t i = begin; i < end; i++) local(i);
  }
}

template <class F> void map_rows(Device device, int64_t rows, const F& f) {
  if (rows == 0 || dry_run()) return;
  if (device.kind == Device::cuda) {
    launch({dim3(unsigned((rows + 3) / 4)), dim3(128)}, map_rows_kernel<F>, rows, f);
    return;
  }
#pragma omp parallel for schedule(static) if (rows > 64)
  for (int64_t row = 0; row < rows; row++) f(row, CpuTeam{});
}

template <class C> struct SumChunks {
  const C* partial;
  C* total;
  int64_t chunks, n;
  HD void operator()(int64_t i) const {
    C s = 0;
    for (int64_t c = 0; c < chunks; c++) s += partial[c * n + i];
    total[i] = s;
  }
};

template <class C, class F> Tensor map_rows_reduce(Device device, int64_t rows, int64_t columns, int k, const F& f) {
  const int64_t chunks = std::clamp<int64_t>(rows / 32, 1, device.kind == Device::cuda || dry_run() ? 1024 : 32);
  const int64_t rows_a_chunk = (rows + chunks - 1) / chunks;
  const Tensor partial = Tensor::empty({chunks, k * columns}, dtype_of<C>, device);
  C* sums = partial.data<C>();
  Tensor total = Tensor::empty({k, columns}, dtype_of<C>, device);
  count_kernel({partial}, {partial, total});   // the op's own kernel wrote the parts
  if (dry_run()) return total;
  if (device.kind == Device::cuda) {
    launch({dim3(unsigned(chunks)), dim3(32), size_t(k * columns) * sizeof(C)}, map_rows_reduce_kernel<C, F>, rows,
           rows_a_chunk, columns, k, f, sums);
  } else {
#pragma omp parallel for schedule(static) if (rows > 64)
    for (int64_t c = 0; c < chunks; c++) {
      const ColumnSums<C> mine{sums + c * k * columns, columns};
      std::fill_n(mine.sums, k * columns, C(0));
      const int64_t end = std::min(rows, (c + 1) * rows_a_chunk);
      for (int64_t row = c * rows_a_chunk; row < end; row++) f(row, CpuTeam{}, mine);
    }
  }
  map(device, k * columns, SumChunks<C>{sums, total.data<C>(), chunks, k * columns});
  return total;
}

// The last step of a gradient: to = beta * to + from, beta being 0 (write) or 1 (add).
template <class From, class To> struct AddInto {
  const From* from;
  To* to;
  bool add;
  HD void operator()(int64_t i) const { to[i] = To((add ? Compute<To>(to[i]) : Compute<To>(0)) + Compute<To>(Compute<From>(from[i]))); }
};

// Adds row `which` of the sums that map_rows_reduce made to the gradient of a parameter, if it wants one.
template <class C> void add_sums(const Tensor& sums, int which, const Tensor& parameter) {
  if (!parameter.wants_grad()) return;
  auto [grad, beta] = into(parameter);
  const int64_t n = sums.dim(1);
  check(grad.size() == n, "[add_sums] ", n, " sums for a parameter of shape ", parameter.shape());
  count_kernel({n * int64_t(sizeof(C))}, {Into{grad, beta}});
  dispatch(grad.dtype(), [&]<class T>() { map(grad.device(), n, AddInto<C, T>{sums.data<C>() + which * n, grad.data<T>(), beta != 0}); });
}

// A parameter in the type in which an op on activations of the given dtype computes: f64 for f64, else f32. No copy if it is that already.
inline Tensor computed(const Tensor& parameter, DType activations) {
  if (!parameter) return {};
  return parameter.to(activations == DType::f64 ? DType::f64 : DType::f32);
}
