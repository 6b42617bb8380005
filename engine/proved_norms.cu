// proved_norms.cu: Gram matrices by tiles of sums in f64, proofs by a Cholesky factorisation in panels. Both lie column by column, lower triangle only,
// the factor from behind in what the Gram matrix leaves free.
#include "engine/proved_norms.h"

#include <algorithm>
#include <limits>

#include "engine/kernel.h"
#include "engine/norm_proof.h"

namespace {

using Row = ProvedNorms::Row;
using Tile = ProvedNorms::Tile;
using Search = ProvedNorms::Search;

constexpr int panel = 32;                        // columns that are eliminated before the rest is touched
constexpr int tile = 64, slab = 16, pitch = 65;  // of a Gram matrix; of the sums at a time; where the next of a slab's vectors begins
constexpr int threads = 256, share = 4;          // a thread has share x share numbers of a tile
constexpr size_t tile_bytes = 2 * slab * pitch * sizeof(double), proof_bytes = tile_bytes + (panel * panel + 1) * sizeof(double);   // of shared memory
static_assert(tile * tile == threads * share * share);

HD bool finite(double x) { return x - x == 0; }

// scales[i]: the power of two by which the largest number of A_i comes to [0.5, 1); 0 for a matrix of zeros, infinity for one that is not finite.
template <class T> KERNEL scale_kernel(const Row* rows, const T* flat, double* scales) {
  const Row m = rows[blockIdx.x];
  double largest = 0;
  for (int64_t i = threadIdx.x; i < m.size * m.depth; i += threads) {
    const double size = fabs(double(flat[m.offset + i]));
    if (!(size <= largest)) largest = finite(size) ? size : std::numeric_limits<double>::infinity();
  }
  double* of_warps = dynamic_shared<double>();
  largest = warp_max(largest);
  if (lane_id() == 0) of_warps[threadIdx.x / 32] = largest;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int w = 0; w < threads / 32; w++) largest = of_warps[w] > largest ? of_warps[w] : largest;
  int exponent = 0;
  if (finite(largest)) frexp(largest, &exponent);
  scales[blockIdx.x] = largest == 0 || !finite(largest) ? largest : ldexp(1.0, exponent < -1000 ? -1000 : exponent > 1000 ? 1000 : exponent);
}

// A slab [slab, pitch] of vectors `first`.. of A / scale, from `begin` of the sum on; zeros beyond the matrix.
template <class T> DEVICE void load_slab(const Row& m, const T* flat, double unscale, int64_t first, int64_t begin, double* to) {
  for (int at = threadIdx.x; at < tile * slab; at += threads) {
    const int k = m.along_depth == 1 ? at % slab : at / tile, i = m.along_depth == 1 ? at / slab : at % tile;   // neighbours read neighbours
    const bool inside = first + i < m.size && begin + k < m.depth;
    to[k * pitch + i] = inside ? double(flat[m.offset + (first + i) * m.along_size + (begin + k) * m.along_depth]) * unscale : 0.0;
  }
}

// A thread's share of a tile: products of the vectors from `row` on and those from `column` on. Its numbers lie tile / share apart.
struct Share {
  static constexpr int apart = tile / share;
  const int row = threadIdx.x % apart, column = threadIdx.x / apart;
  double sums[share][share] = {};

  template <class T> DEVICE void add(const Row& m, const T* flat, double unscale, const Tile& t) {
    double *left = dynamic_shared<double>(), *right = left + slab * pitch;
    for (int64_t begin = 0; begin < m.depth; begin += slab) {
      load_slab(m, flat, unscale, t.row, begin, left);
      load_slab(m, flat, unscale, t.column, begin, right);
      __syncthreads();
      for (int k = 0; k < slab; k++) {
        double x[share], y[share];
        UNROLL
        for (int e = 0; e < share; e++) x[e] = left[k * pitch + row + e * apart], y[e] = right[k * pitch + column + e * apart];
        UNROLL
        for (int a = 0; a < share; a++)
          UNROLL
          for (int b = 0; b < share; b++) sums[a][b] += x[a] * y[b];
      }
      __syncthreads();
    }
  }
  template <class F> DEVICE void each(const Tile& t, int64_t size, F&& f) const {   // f(row, column, sum) in the lower triangle
    UNROLL
    for (int b = 0; b < share; b++)
      UNROLL
      for (int a = 0; a < share; a++) {
        const int64_t i = t.row + row + a * apart, j = t.column + column + b * apart;
        if (i < size && j <= i) f(i, j, sums[a][b]);
      }
  }
};

template <class T> KERNEL __launch_bounds__(threads) gram_kernel(const Row* rows, const Tile* tiles, const T* flat, const double* scales, double* gram) {
  const Tile t = tiles[blockIdx.x];
  const Row m = rows[t.matrix];
  const double scale = scales[t.matrix];
  if (!(scale > 0) || !finite(scale)) return;
  Share mine;
  mine.add(m, flat, 1 / scale, t);
  mine.each(t, m.size, [&](int64_t i, int64_t j, double sum) { gram[m.gram + j * m.size + i] = sum; });
}

// What all threads of a block know of its matrix.
struct Proof {
  norm_proof::Gram of;
  const double* gram;
  double* last;   // of the numbers of its Gram matrix's place: from there backwards lies the matrix that is factorised
  DEVICE double& at(int64_t row, int64_t column) const { return last[-(column * of.size + row)]; }
};

DEVICE Proof start(const Row& row, double scale, double* gram) {
  Proof p{{row.size, scale}, gram + row.gram, gram + row.gram + row.size * (row.size + 1) - 1};
  double trace = 0;
  for (int64_t i = 0; i < row.size && scale > 0 && finite(scale); i++) trace += p.gram[i * (row.size + 1)];
  p.of = norm_proof::counted(row.size, scale, trace, rounding::gamma(row.depth));
  return p;
}

// The corner of a panel, [panel, panel] column by column in shared memory, becomes its Cholesky factor. By a whole warp; whether every pivot is positive.
DEVICE bool eliminate_corner(double* corner) {
  const int r = int(lane_id());
  for (int c = 0; c < panel; c++) {
    const double pivot = corner[c * panel + c];
    if (!(pivot > 0)) return false;
    const double root = sqrt(pivot);
    __syncwarp();
    if (r >= c) corner[c * panel + r] = r == c ? root : corner[c * panel + r] / root;
    __syncwarp();
    for (int d = c + 1; d <= r; d++) corner[d * panel + r] -= corner[c * panel + d] * corner[c * panel + r];
    __syncwarp();
  }
  return true;
}

// Whether every pivot is positive: panel by panel its corner, the rows below, and what they take from the rest. All threads return the same.
DEVICE bool factorizes(const Proof& p) {
  const int64_t n = p.of.size;
  double *corner = dynamic_shared<double>() + 2 * slab * pitch, *positive = corner + panel * panel;
  for (int64_t p0 = 0; p0 < n; p0 += panel) {
    for (int at = threadIdx.x; at < panel * panel; at += threads) {
      const int r = at % panel, c = at / panel;
      corner[at] = p0 + r < n && c <= r ? p.at(p0 + r, p0 + c) : double(r == c);
    }
    __syncthreads();
    const bool by_warp = threadIdx.x < 32 && eliminate_corner(corner);
    if (threadIdx.x == 0) *positive = by_warp;
    __syncthreads();
    if (*positive == 0) return false;
    const int64_t rest = p0 + panel;
    for (int64_t r = rest + threadIdx.x; r < n; r += threads)
      for (int c = 0; c < panel; c++) {
        double x = p.at(r, p0 + c);
        for (int d = 0; d < c; d++) x -= corner[d * panel + c] * p.at(r, p0 + d);
        p.at(r, p0 + c) = x / corner[c * panel + c];
      }
    __syncthreads();
    for (Tile t{0, rest, rest}; t.row < n; t.row += tile)
      for (t.column = rest; t.column <= t.row; t.column += tile) {
        Share mine;
        mine.add({0, n, panel, -1, -n, 0}, &p.at(0, p0), 1.0, t);
        mine.each(t, n, [&](int64_t i, int64_t j, double sum) { p.at(i, j) -= sum; });
      }
    __syncthreads();
  }
  return true;
}

DEVICE bool within(const Proof& p, double limit) {
  const double scale = p.of.scale, square = (limit / scale) * (limit / scale);
  if (!finite(scale) || !(limit >= 0)) return false;
  if (scale == 0 || norm_proof::proved_by_trace(p.of, square)) return true;
  const double diagonal = square - norm_proof::margin(p.of, square);
  const int64_t n = p.of.size, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  __syncthreads();
  for (int64_t j = warp; j < n; j += warps)
    for (int64_t i = j + lane_id(); i < n; i += 32) p.at(i, j) = (i == j ? diagonal : 0.0) - p.gram[j * n + i];
  __syncthreads();
  return factorizes(p);
}

KERNEL __launch_bounds__(threads, 1) test_kernel(const Row* rows, const double* scales, double* gram, const double* limits, double* proved) {
  const Proof p = start(rows[blockIdx.x], scales[blockIdx.x], gram);
  const bool is = within(p, limits[blockIdx.x]);
  if (threadIdx.x == 0) proved[blockIdx.x] = is;
}

KERNEL __launch_bounds__(threads, 1) bound_kernel(const Row* rows, const double* scales, double* gram, const double* estimates, const double* skip,
                                               double* bounds, Search search) {
  if (skip && skip[blockIdx.x] != 0) return;
  const Proof p = start(rows[blockIdx.x], scales[blockIdx.x], gram);
  double bound = p.of.scale;
  if (finite(bound) && bound > 0)
    bound = norm_proof::small_limit(p.of, estimates[blockIdx.x], search.first, search.tolerance, [&](double limit) { return within(p, limit); },
                                    [] { return 0.0; });
  if (threadIdx.x == 0) bounds[blockIdx.x] = bound;
}

}  // namespace

ProvedNorms::ProvedNorms(const std::vector<MatrixBatch::Matrix>& matrices, Device device) : matrices_(int64_t(matrices.size())) {
  std::vector<Row> rows;
  std::vector<Tile> tiles;
  int64_t numbers = 0;
  for (const auto& m : matrices) {
    const bool wide = m.rows <= m.columns;
    const int64_t size = std::min(m.rows, m.columns), i = int64_t(rows.size());
    rows.push_back({m.offset, size, std::max(m.rows, m.columns), wide ? m.columns : 1, wide ? 1 : m.columns, numbers});
    numbers += size * (size + 1);
    for (int64_t row = 0; row < size; row += tile)
      for (int64_t column = 0; column <= row; column += tile) tiles.push_back({i, row, column});
  }
  tiles_ = int64_t(tiles.size());
  table_ = table_of(rows, device);
  tile_table_ = table_of(tiles, device);
  scales_ = Tensor::empty({matrices_}, DType::f64, device);
  gram_ = Tensor::empty({numbers}, DType::f64, device);
}

void ProvedNorms::look(const Tensor& flat) const {
  if (matrices_ == 0) return;
  const auto* rows = reinterpret_cast<const Row*>(table_.raw());
  const auto* tiles = reinterpret_cast<const Tile*>(tile_table_.raw());
  with_weight_type(flat.dtype(), [&]<class T>() {
    launch({dim3(unsigned(matrices_)), dim3(threads), threads / 32 * sizeof(double)}, scale_kernel<T>, rows, flat.data<T>(), scales_.data<double>());
    launch({dim3(unsigned(tiles_)), dim3(threads), tile_bytes}, gram_kernel<T>, rows, tiles, flat.data<T>(), scales_.data<double>(),
           gram_.data<double>());
  });
}

void ProvedNorms::test(const Tensor& flat, const Tensor& limits, const Tensor& within) const {
  if (matrices_ == 0) return;
  look(flat);
  launch({dim3(unsigned(matrices_)), dim3(threads), proof_bytes}, test_kernel, reinterpret_cast<const Row*>(table_.raw()), scales_.data<double>(),
         gram_.data<double>(), limits.data<double>(), within.data<double>());
}

void ProvedNorms::bound(const Tensor& estimates, const Tensor& skip, const Tensor& bounds, const Search& search) const {
  if (matrices_ == 0) return;
  launch({dim3(unsigned(matrices_)), dim3(threads), proof_bytes}, bound_kernel, reinterpret_cast<const Row*>(table_.raw()), scales_.data<double>(),
         gram_.data<double>(), estimates.data<double>(), skip ? skip.data<double>() : nullptr, bounds.data<double>(), search);
}
