// map.h: one text for both devices. A functor says what happens to an element or a row; here it becomes a loop on the CPU and a
// kernel on CUDA.
//
//   map(device, n, f)                                    f(i)
//   map_values(device, n, y, add, f, x...)               y_i = (add ? y_i : 0) + f(x_i...), in the computing type
//   map_rows(device, rows, f)                            f(row, team)
//   map_rows<T>(device, rows, columns, f)                the same for rows of T: on CUDA a row stays in registers if it fits
//   map_cells<T>(device, rows, columns, f)               the same where no column looks at another: wide rows are cut
//   sum_rows<T>(device, rows, columns, f)                [1]: the sum of the numbers f(row, team) that the leaders give
//   map_rows_reduce<C>(device, rows, columns, k, f)      f(row, team, sums): sums.add(which, j, value); returns [k, columns]
//   map_rows_reduce<T, k>(device, rows, columns, f)      as map_rows<T>
//   map_cells_reduce<T, k>(device, rows, columns, f)     as map_cells<T>
//
// map_values and the forms that name T read and write 16 bytes at a time on CUDA; team.h says what a team knows. Sums over rows are
// made of chunks that depend on the shape only and are added in order, so the result does not depend on the number of threads.
#pragma once
#include <algorithm>

#include "engine/autograd.h"
#include "engine/profile.h"
#include "engine/team.h"

// Private sums of a chunk of rows: k vectors of `columns`. A column always belongs to the same lane.
template <class C> struct ColumnSums {
  C* sums;
  int64_t columns;
  HD void add(int which, int64_t column, C value) const { sums[which * columns + column] += value; }
};

// The same for the places that one lane of a RegisterTeam sees.
template <class C, int k, int width, int packs> struct RegisterSums {
  C sums[k][packs * width] = {};
  DEVICE void add(int which, const Place& j, C value) { sums[which][j.pack * width + j.element] += value; }
};

template <class F> KERNEL map_kernel(int64_t n, F f) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) f(i);
}

template <class F> KERNEL map_rows_kernel(int64_t rows, F f) {
  const int64_t row = int64_t(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  if (row < rows) f(row, WarpTeam{});
}

// One element a thread's pack: 16 bytes of the narrowest type.
template <class To, class... From> constexpr int values_a_thread = int(16 / std::min({sizeof(To), sizeof(From)...}));

template <class F, class To, class... From>
KERNEL map_values_kernel(int64_t n, bool aligned, bool add, F f, To* y, const From*... x) {
  constexpr int width = values_a_thread<To, From...>;
  const int64_t begin = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * width;
  if (aligned && begin + width <= n) {
    const auto from = [&](const auto& old, const auto&... in) {
      Compute<To> values[width];
      UNROLL
      for (int e = 0; e < width; e++) values[e] = (add ? old[e] : Compute<To>(0)) + Compute<To>(f(in[e]...));
      Pack<To, width> out;
      out.set(values);
      out.store(y + begin);
    };
    Pack<To, width> old;
    if (add) old.load(y + begin);
    from(old, load_pack<width>(x + begin)...);
    return;
  }
  const int64_t end = begin + width < n ? begin + width : n;
  for (int64_t i = begin; i < end; i++)
    y[i] = To((add ? Compute<To>(y[i]) : Compute<To>(0)) + Compute<To>(f(Compute<From>(x[i])...)));
}

template <int width, int packs, class F> KERNEL __launch_bounds__(128) register_rows_kernel(int64_t rows, int64_t columns, int lanes, F f) {
  const int64_t row = int64_t(blockIdx.x) * (blockDim.x / lanes) + threadIdx.x / lanes;
  const int64_t first = int64_t(blockIdx.y) * lanes * packs * width;
  if (row < rows) f(row, RegisterTeam<width, packs>{lanes, first, columns});
}

// Every warp has its own sums in shared memory; the first lanes add them in order. What does not fit there has one warp a block.
template <class C, class F>
KERNEL map_rows_reduce_kernel(int64_t rows, int64_t rows_a_chunk, int64_t columns, int k, bool fits, F f, C* partial) {
  const int64_t n = k * columns, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  C *all = fits ? dynamic_shared<C>() : partial + blockIdx.x * n, *sums = all + warp * n;
  for (int64_t i = lane_id(); i < n; i += 32) sums[i] = 0;
  __syncwarp();
  const int64_t begin = blockIdx.x * rows_a_chunk;
  const int64_t end = begin + rows_a_chunk < rows ? begin + rows_a_chunk : rows;
  const ColumnSums<C> mine{sums, columns};
  for (int64_t row = begin + warp; row < end; row += warps) f(row, WarpTeam{}, mine);
  if (!fits) return;
  __syncthreads();
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
    C sum = 0;
    for (int64_t w = 0; w < warps; w++) sum += all[w * n + i];
    partial[blockIdx.x * n + i] = sum;
  }
}

// The rows of a block's teams one behind the other; then the teams of a warp, the warps of the block. partial [blocks, k, columns].
template <class C, int width, int packs, int k, class F>
KERNEL __launch_bounds__(128) register_rows_reduce_kernel(int64_t rows, int64_t columns, int lanes, F f, C* partial) {
  const int64_t teams = blockDim.x / lanes, window = int64_t(lanes) * packs * width, first = blockIdx.y * window;
  RegisterSums<C, k, width, packs> sums;
  for (int64_t begin = blockIdx.x * teams; begin < rows; begin += gridDim.x * teams) {
    const int64_t row = begin + threadIdx.x / lanes;   // a team without a row sees no columns of the last one: all lanes shuffle alike
    f(row < rows ? row : rows - 1, RegisterTeam<width, packs>{lanes, first, row < rows ? columns : 0}, sums);
  }
  C* all = dynamic_shared<C>();   // [warps, k, window]
  const int warp = threadIdx.x / 32, warps = blockDim.x / 32, lane = int(lane_id());
  UNROLL
  for (int which = 0; which < k; which++)
    UNROLL
    for (int i = 0; i < packs * width; i++) {
      C sum = sums.sums[which][i];
      for (int by = lanes; by < 32; by *= 2) sum += __shfl_xor_sync(~0u, sum, by);
      const int column = (lane + i / width * lanes) * width + i % width;
      if (lane < lanes) all[(warp * k + which) * window + column] = sum;
    }
  __syncthreads();
  for (int64_t i = threadIdx.x; i < k * window; i += blockDim.x) {
    const int64_t which = i / window, column = first + i % window;
    if (column >= columns) continue;
    C sum = 0;
    for (int w = 0; w < warps; w++) sum += all[w * k * window + i];
    partial[(blockIdx.x * k + which) * columns + column] = sum;
  }
}

// total_i = sum of partial[chunk, i]: 16 threads share a column.
template <class C> KERNEL sum_chunks_kernel(const C* partial, C* total, int64_t chunks, int64_t n) {
  const int64_t i = int64_t(blockIdx.x) * 32 + threadIdx.x;
  C* sums = dynamic_shared<C>();
  C sum = 0;
  if (i < n)
    for (int64_t c = threadIdx.y; c < chunks; c += blockDim.y) sum += partial[c * n + i];
  sums[threadIdx.y * 32 + threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || i >= n) return;
  for (unsigned y = 1; y < blockDim.y; y++) sum += sums[y * 32 + threadIdx.x];
  total[i] = sum;
}

// How rows lie in registers: `lanes` lanes of `packs` packs cover a row, or each of its windows.
struct RegisterShape {
  int lanes = 0, packs = 0;   // 0: they do not
  int64_t windows = 1;
};

// The one of `choices` that leaves the fewest places empty; among those the one with the most lanes.
inline RegisterShape register_shape(int64_t bytes_a_row, std::initializer_list<int> choices, bool cut) {
  RegisterShape best;
  if (bytes_a_row % 16 != 0) return best;
  const int64_t total = bytes_a_row / 16;
  int64_t least = std::numeric_limits<int64_t>::max();
  for (const int packs : choices)
    for (int lanes = 32; lanes > 0; lanes /= 2) {
      const int64_t windows = (total + lanes * packs - 1) / (lanes * packs), places = windows * lanes * packs;
      if ((!cut && windows > 1) || places > least || (places == least && lanes <= best.lanes)) continue;
      least = places;
      best = {lanes, packs, windows};
    }
  return best;
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

// y, f and the xs are copies that nothing aliases: they stay in registers.
template <class F, class To, class... From> void map_values_cpu(int64_t begin, int64_t end, bool add, F f, To* y, const From*... x) {
  if (add) {
#pragma GCC ivdep
    for (int64_t i = begin; i < end; i++) y[i] = To(Compute<To>(y[i]) + Compute<To>(f(Compute<From>(x[i])...)));
  } else {
#pragma GCC ivdep
    for (int64_t i = begin; i < end; i++) y[i] = To(Compute<To>(f(Compute<From>(x[i])...)));
  }
}

template <class F, class To, class... From>
void map_values(Device device, int64_t n, To* y, bool add, const F& f, const From*... x) {
  if (n == 0 || dry_run()) return;
  if (device.kind == Device::cuda) {
    const bool aligned = ((reinterpret_cast<uintptr_t>(y) | ... | reinterpret_cast<uintptr_t>(x)) % 16) == 0;
    const int64_t a_block = 256 * values_a_thread<To, From...>;
    launch({dim3(unsigned((n + a_block - 1) / a_block)), dim3(256)}, map_values_kernel<F, To, From...>, n, aligned, add, f, y, x...);
    return;
  }
  constexpr int64_t block = 8192;
#pragma omp parallel for schedule(static) if (n > 4 * block)
  for (int64_t begin = 0; begin < n; begin += block) map_values_cpu(begin, std::min(n, begin + block), add, f, y, x...);
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

// The sum over the leading dimension, in order.
template <class C> void sum_chunks(const Tensor& partial, const Tensor& total) {
  if (dry_run()) return;
  const int64_t chunks = partial.dim(0), n = total.size();
  if (partial.device().kind == Device::cuda)
    launch({dim3(unsigned((n + 31) / 32)), dim3(32, 16), 512 * sizeof(C)}, sum_chunks_kernel<C>, partial.data<C>(), total.data<C>(), chunks, n);
  else
    map(partial.device(), n, SumChunks<C>{partial.data<C>(), total.data<C>(), chunks, n});
}

template <class C, class F> Tensor map_rows_reduce(Device device, int64_t rows, int64_t columns, int k, const F& f) {
  const bool cuda = device.kind == Device::cuda;
  const int64_t chunks = std::clamp<int64_t>(rows / 32, 1, cuda || dry_run() ? 1024 : 32), n = k * columns;
  const int64_t rows_a_chunk = (rows + chunks - 1) / chunks;
  const Tensor partial = Tensor::empty({chunks, n}, dtype_of<C>, device), total = Tensor::empty({k, columns}, dtype_of<C>, device);
  C* sums = partial.data<C>();
  count_kernel({partial}, {partial, total});   // the op's own kernel wrote the parts
  if (dry_run()) return total;
  if (cuda) {
    const int64_t a_warp = n * int64_t(sizeof(C)), warps = std::clamp<int64_t>(48 * 1024 / a_warp, 1, 4);
    const bool fits = a_warp <= 48 * 1024;   // else a warp adds in device memory
    launch({dim3(unsigned(chunks)), dim3(unsigned(warps * 32)), fits ? size_t(warps * a_warp) : 0}, map_rows_reduce_kernel<C, F>, rows, rows_a_chunk,
           columns, k, fits, f, sums);
  } else {
#pragma omp parallel for schedule(static) if (rows > 64)
    for (int64_t c = 0; c < chunks; c++) {
      const ColumnSums<C> mine{sums + c * n, columns};
      std::fill_n(mine.sums, n, C(0));
      const int64_t end = std::min(rows, (c + 1) * rows_a_chunk);
      for (int64_t row = c * rows_a_chunk; row < end; row++) f(row, CpuTeam{}, mine);
    }
  }
  sum_chunks<C>(partial, total);
  return total;
}

// Calls run.operator()<packs>() with the choice that was taken.
template <int... choices, class R> void with_packs(int packs, const R& run) {
  ((packs == choices ? run.template operator()<choices>() : void()), ...);
}

template <class T, bool cut, class F> void map_register_rows(Device device, int64_t rows, int64_t columns, const F& f) {
  if (rows == 0 || dry_run()) return;
  if constexpr (sizeof(T) <= 4) {
    const RegisterShape shape = device.kind == Device::cuda ? register_shape(columns * sizeof(T), {3, 4, 8}, cut) : RegisterShape{};
    if (shape.lanes) {
      const int64_t teams = 128 / shape.lanes;
      const dim3 grid(unsigned((rows + teams - 1) / teams), unsigned(shape.windows));
      with_packs<3, 4, 8>(shape.packs, [&]<int packs>() {
        launch({grid, dim3(128)}, register_rows_kernel<16 / sizeof(T), packs, F>, rows, columns, shape.lanes, f);
      });
      return;
    }
  }
  map_rows(device, rows, f);
}

template <class T, class F> void map_rows(Device device, int64_t rows, int64_t columns, const F& f) {
  map_register_rows<T, false>(device, rows, columns, f);
}
template <class T, class F> void map_cells(Device device, int64_t rows, int64_t columns, const F& f) {
  map_register_rows<T, true>(device, rows, columns, f);
}

// Blocks for sums that fill a GPU of today four times over, but each with work for its teams: a pure function of the shape.
inline int64_t reduce_blocks(int64_t rows, int64_t teams, int64_t windows) {
  return std::clamp<int64_t>(rows / (4 * teams), 1, std::max<int64_t>(1, 528 / windows));
}

template <class T, int k, bool cut, class F> Tensor map_register_rows_reduce(Device device, int64_t rows, int64_t columns, const F& f) {
  using C = Compute<T>;
  if constexpr (sizeof(T) <= 4) {
    constexpr int width = 16 / sizeof(T), most = k * width <= 16 ? 6 : 4;   // sums that fit in registers beside the rows
    const RegisterShape shape = device.kind == Device::cuda || dry_run() ? register_shape(columns * sizeof(T), {3, 4, most}, cut) : RegisterShape{};
    if (shape.lanes) {
      const int64_t teams = 128 / shape.lanes, blocks = reduce_blocks(rows, teams, shape.windows);
      const Tensor partial = Tensor::empty({blocks, k * columns}, dtype_of<C>, device), total = Tensor::empty({k, columns}, dtype_of<C>, device);
      count_kernel({partial}, {partial, total});   // the op's own kernel wrote the parts
      if (dry_run()) return total;
      const size_t shared = size_t(4 * k * shape.lanes * shape.packs * width) * sizeof(C);
      const auto run = [&]<int packs>() {
        launch({dim3(unsigned(blocks), unsigned(shape.windows)), dim3(128), shared}, register_rows_reduce_kernel<C, width, packs, k, F>,
               rows, columns, shape.lanes, f, partial.data<C>());
      };
      if constexpr (most == 6) with_packs<3, 4, 6>(shape.packs, run);
      else with_packs<3, 4>(shape.packs, run);
      sum_chunks<C>(partial, total);
      return total;
    }
  }
  return map_rows_reduce<C>(device, rows, columns, k, f);
}

template <class T, int k, class F> Tensor map_rows_reduce(Device device, int64_t rows, int64_t columns, const F& f) {
  return map_register_rows_reduce<T, k, false>(device, rows, columns, f);
}
template <class T, int k, class F> Tensor map_cells_reduce(Device device, int64_t rows, int64_t columns, const F& f) {
  return map_register_rows_reduce<T, k, true>(device, rows, columns, f);
}

// What sum_rows makes of its functor: a number a row in memory, or one that is added at once.
template <class C, class F> struct KeepNumber {
  F f;
  C* numbers;
  template <class Team> HD void operator()(int64_t row, const Team& team) const {
    const C number = f(row, team);
    if (team.leads()) numbers[row] = number;
  }
};
template <class C, class F> struct AddNumber {
  F f;
  template <class Team, class Sums> HD void operator()(int64_t row, const Team& team, Sums& sums) const { sums.add(0, 0, f(row, team)); }
};

template <class T, class F> Tensor sum_rows(Device device, int64_t rows, int64_t columns, const F& f) {
  using C = Compute<T>;
  if (device.kind == Device::cpu && !dry_run()) return map_rows_reduce<C>(device, rows, 1, 1, AddNumber<C, F>{f}).view({1});
  const Tensor numbers = Tensor::empty({rows, 1}, dtype_of<C>, device), total = Tensor::empty({1}, dtype_of<C>, device);
  map_rows<T>(device, rows, columns, KeepNumber<C, F>{f, numbers.data<C>()});
  count_kernel({numbers}, {numbers, total});   // the op's own kernel wrote the numbers
  sum_chunks<C>(numbers, total);
  return total;
}

// The numbers as they are; map_values converts them.
struct Same {
  template <class C> HD C operator()(C x) const { return x; }
};

// Adds row `which` of the sums that map_rows_reduce made to the gradient of a parameter, if it wants one.
template <class C> void add_sums(const Tensor& sums, int which, const Tensor& parameter) {
  if (!parameter.wants_grad()) return;
  auto [grad, beta] = into(parameter);
  const int64_t n = sums.dim(1);
  check(grad.size() == n, "[add_sums] ", n, " sums for a parameter of shape ", parameter.shape());
  count_kernel({n * int64_t(sizeof(C))}, {Into{grad, beta}});
  dispatch(grad.dtype(), [&]<class T>() { map_values(grad.device(), n, grad.data<T>(), beta != 0, Same{}, sums.data<C>() + which * n); });
}

// A parameter in the type in which an op on activations of the given dtype computes: f64 for f64, else f32. No copy if it is that already.
inline Tensor computed(const Tensor& parameter, DType activations) {
  if (!parameter) return {};
  return parameter.to(activations == DType::f64 ? DType::f64 : DType::f32);
}
