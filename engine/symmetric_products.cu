// symmetric_products.cu: bf16 on the tensor cores by the tiles of gemm_mma.h, f32 and f64 by plain tiles. On the CPU all of them are gemm's.
#include "engine/symmetric_products.h"

#include <algorithm>

#include "engine/blas.h"
#include "engine/gemm_mma.h"
#include "engine/launch_table.h"
#include "engine/map.h"

namespace {

// C [n, n] of X [n, terms], or of a tall X [terms, n]. whole: all lines are whole pieces of 16 bytes.
template <class T> struct SymmetricJob {
  const T* x;
  T* c;
  int n, terms, first;
  bool tall, whole;
};

// to [m, n] = left [m, k] right [k, n].
struct ProductJob {
  const bf16 *left, *right;
  bf16* to;
  int m, n, k, first;
  bool whole;
};

template <class C> struct Factors {
  C identity, linear, square;
};

// Which tile of the lower triangle a block has, counted row by row.
struct LowerTile {
  int row = 0, column;
  DEVICE explicit LowerTile(int index) : column(index) {
    while (column > row) column -= ++row;
  }
};

DEVICE float number(const Piece& piece, int j) { return j % 2 ? high_half(piece.word[j / 2]) : low_half(piece.word[j / 2]); }
DEVICE bf16 stored(const Piece& piece, int j) {
  bf16 x;
  x.bits = uint16_t(piece.word[j / 2] >> 16 * (j % 2));
  return x;
}

// 8 numbers of a row of a matrix [height, width], as far as it goes.
DEVICE Piece load_line(const bf16* matrix, int row, int height, int column, int width, bool whole) {
  if (!whole) return gemm_mma::gathered_piece(matrix, row, height, column, width);
  return row < height && column < width ? load_piece(matrix + int64_t(row) * width + column) : Piece{};
}
DEVICE void store_line(bf16* matrix, int row, int height, int column, int width, const Piece& piece, bool whole) {
  if (row >= height || column >= width) return;
  bf16* to = matrix + int64_t(row) * width + column;
  if (whole) return store_piece(to, piece.word);
  UNROLL for (int j = 0; j < 8; j++)
    if (column + j < width) to[j] = stored(piece, j);
}

KERNEL __launch_bounds__(gemm_mma::threads, 2) symmetric_mma_kernel(LaunchTable<SymmetricJob<bf16>> table, Factors<float> factors) {
  using namespace gemm_mma;
  const SymmetricJob<bf16> job = table.of(int(blockIdx.x));
  const LowerTile at(int(blockIdx.x) - job.first);
  const int first_row = at.row * side, first_column = at.column * side, n = job.n;
  const Product g{job.x, job.x, nullptr, nullptr, n, n, job.terms};
  Sums sum = {};
  if (job.tall) multiply<true, false>(g, first_row, first_column, job.whole, sum);
  else multiply<false, true>(g, first_row, first_column, job.whole, sum);

  // The results lie in shared memory until their mirror image is written. Of a tile on the diagonal the lower half is both halves.
  __syncthreads();   // nobody multiplies any more
  const Tile<side> results{dynamic_shared<bf16>()};
  const bool diagonal = at.row == at.column;
  each_piece(sum, [&](int row, int column, float (&value)[8]) {
    const Piece x = factors.linear != 0 ? load_line(job.x, first_row + row, n, first_column + column, n, job.whole) : Piece{};
    UNROLL for (int j = 0; j < 8; j++)
      value[j] = factors.square * value[j] + factors.linear * number(x, j) + (diagonal && row == column + j ? factors.identity : 0.0f);
    const Piece piece = rounded(value);
    if (!diagonal) {
      store_piece(results.piece(row, column / 8), piece.word);
      store_line(job.c, first_row + row, n, first_column + column, n, piece, job.whole);
      return;
    }
    UNROLL for (int j = 0; j < 8; j++) {
      if (column + j > row) continue;
      results.piece(row, column / 8)[j] = stored(piece, j);
      results.piece(column + j, row / 8)[row % 8] = stored(piece, j);
    }
  });
  __syncthreads();
  const int lane = int(lane_id());
  for (int i = int(threadIdx.x) / 32; i < side / 8 * 4; i += threads / 32) {   // 8 columns and 32 rows of the tile become 8 rows and 32 columns
    const int column = i / 4 * 8, row = i % 4 * 32;
    Piece piece;
    load_matrices<true>(piece.word, results.piece(row + lane, column / 8));
    row_transpose(piece.word);
    store_line(job.c, first_column + column + lane / 4, n, first_row + row + lane % 4 * 8, n, piece, job.whole);
  }
}

KERNEL __launch_bounds__(gemm_mma::threads, 2) product_mma_kernel(LaunchTable<ProductJob> table) {
  using namespace gemm_mma;
  const ProductJob job = table.of(int(blockIdx.x));
  const int tile = int(blockIdx.x) - job.first, across = (job.n + side - 1) / side;
  const int first_row = tile / across * side, first_column = tile % across * side;
  Sums sum = {};
  multiply<false, false>({job.left, job.right, nullptr, nullptr, job.m, job.n, job.k}, first_row, first_column, job.whole, sum);
  each_piece(sum, [&](int row, int column, float (&value)[8]) {
    store_line(job.to, first_row + row, job.m, first_column + column, job.n, rounded(value), job.whole);
  });
}

// A block makes 32 x 32 results, a thread 4 x 4 of them, over steps of 16 terms.
constexpr int plain_side = 32, plain_depth = 16, plain_threads = 64, plain_stride = plain_side + 4;

template <class T> DEVICE void load_plain(T* to, const SymmetricJob<T>& job, int first_line, int first_term) {
  for (int e = int(threadIdx.x); e < plain_side * plain_depth; e += plain_threads) {   // neighbours read neighbours
    const int line = job.tall ? e % plain_side : e / plain_depth, term = job.tall ? e / plain_side : e % plain_depth;
    const int64_t row = first_line + line, k = first_term + term;
    const bool there = row < job.n && k < job.terms;
    to[term * plain_stride + line] = there ? job.x[job.tall ? k * job.n + row : row * job.terms + k] : T(0);
  }
}

template <class T> KERNEL __launch_bounds__(plain_threads) symmetric_plain_kernel(LaunchTable<SymmetricJob<T>> table, Factors<T> factors) {
  const SymmetricJob<T> job = table.of(int(blockIdx.x));
  const LowerTile at(int(blockIdx.x) - job.first);
  const int first_row = at.row * plain_side, first_column = at.column * plain_side, row = int(threadIdx.x) / 8 * 4, column = int(threadIdx.x) % 8 * 4;
  T *left = dynamic_shared<T>(), *right = left + plain_depth * plain_stride;
  const bool works = first_row + row < job.n && first_column + column <= first_row + row + 3;   // has results of the lower triangle
  T sum[4][4] = {};
  for (int term = 0; term < job.terms; term += plain_depth) {
    __syncthreads();   // nobody works on the terms before any more
    load_plain(left, job, first_row, term);
    load_plain(right, job, first_column, term);
    __syncthreads();
    if (!works) continue;
    for (int k = 0; k < plain_depth; k++)
      UNROLL for (int i = 0; i < 4; i++)
        UNROLL for (int j = 0; j < 4; j++) sum[i][j] += left[k * plain_stride + row + i] * right[k * plain_stride + column + j];
  }
  UNROLL for (int i = 0; i < 4; i++)
    UNROLL for (int j = 0; j < 4; j++) {
      const int64_t r = first_row + row + i, c = first_column + column + j;
      if (r >= job.n || c > r) continue;
      const T x = factors.linear != 0 ? job.x[r * job.n + c] : T(0);
      const T value = factors.square * sum[i][j] + factors.linear * x + (r == c ? factors.identity : T(0));
      job.c[r * job.n + c] = job.c[c * job.n + r] = value;
    }
}

template <class T> constexpr int64_t tile_side = std::is_same_v<T, bf16> ? gemm_mma::side : plain_side;

template <class D> struct AddDiagonal {
  D* a;
  int64_t n;
  Compute<D> value;
  HD void operator()(int64_t i) const { a[i * n + i] = D(Compute<D>(a[i * n + i]) + value); }
};

void symmetric_product_host(const Tensor& x, const Tensor& c, const Quadratic& q) {
  const bool wide = x.dim(0) <= x.dim(1);
  const int64_t n = c.dim(0);
  if (q.linear != 0) c.copy_from(x);
  gemm({.transpose_a = !wide, .transpose_b = wide, .m = n, .n = n, .k = x.size() / n, .alpha = q.square, .beta = q.linear}, x, x, c);
  if (q.identity == 0) return;
  dispatch(c.dtype(), [&]<class D>() { map(c.device(), n, AddDiagonal<D>{c.data<D>(), n, Compute<D>(q.identity)}); });
}

void product_host(const Tensor& s, const Tensor& x, const Tensor& y) {
  const bool wide = x.dim(0) <= x.dim(1);
  gemm({.m = x.dim(0), .n = x.dim(1), .k = s.dim(0)}, wide ? s : x, wide ? x : s, y);
}

bool whole_pieces(const Tensor& t) { return t.dim(1) % 8 == 0 && reinterpret_cast<uintptr_t>(t.raw()) % 16 == 0; }

int64_t blocks_along(int64_t n, int64_t tile) { return (n + tile - 1) / tile; }
int64_t lower_tiles(int64_t n, int64_t tile) { return blocks_along(n, tile) * (blocks_along(n, tile) + 1) / 2; }

// The blocks with the longest sums begin first, so that none of them is left alone at the end.
template <class Job, class Terms> void longest_first(std::vector<Job>& jobs, Terms terms) {
  std::stable_sort(jobs.begin(), jobs.end(), [&](const Job& a, const Job& b) { return terms(a) > terms(b); });
}

template <class T> void symmetric_products_device(const std::vector<Tensor>& x, const std::vector<Tensor>& c, const Quadratic& q) {
  std::vector<SymmetricJob<T>> jobs;
  for (size_t i = 0; i < x.size(); i++) {
    const int64_t n = c[i].dim(0);
    jobs.push_back({x[i].data<T>(), c[i].data<T>(), int(n), int(x[i].size() / n), 0, x[i].dim(0) > x[i].dim(1), whole_pieces(x[i]) && whole_pieces(c[i])});
  }
  longest_first(jobs, [](const auto& job) { return job.terms; });
  using C = Compute<T>;
  const Factors<C> factors{C(q.identity), C(q.linear), C(q.square)};
  for_tables(jobs, [](const auto& job) { return lower_tiles(job.n, tile_side<T>); }, [&](const LaunchTable<SymmetricJob<T>>& table) {
    const dim3 blocks(unsigned(table.units));
    if constexpr (std::is_same_v<T, bf16>) launch({blocks, dim3(gemm_mma::threads), gemm_mma::shared_bytes}, symmetric_mma_kernel, table, factors);
    else launch({blocks, dim3(plain_threads), 2 * plain_depth * plain_stride * sizeof(T)}, symmetric_plain_kernel<T>, table, factors);
  });
}

void products_device(const std::vector<Tensor>& s, const std::vector<Tensor>& x, const std::vector<Tensor>& y) {
  std::vector<ProductJob> jobs;
  for (size_t i = 0; i < x.size(); i++) {
    const int64_t rows = x[i].dim(0), columns = x[i].dim(1);
    const Tensor &left = rows <= columns ? s[i] : x[i], &right = rows <= columns ? x[i] : s[i];
    jobs.push_back({left.data<bf16>(), right.data<bf16>(), y[i].data<bf16>(), int(rows), int(columns), int(s[i].dim(0)), 0,
                    whole_pieces(left) && whole_pieces(right) && whole_pieces(y[i])});
  }
  longest_first(jobs, [](const auto& job) { return job.k; });
  for_tables(jobs, [](const auto& job) { return blocks_along(job.m, gemm_mma::side) * blocks_along(job.n, gemm_mma::side); },
             [&](const LaunchTable<ProductJob>& table) {
               launch({dim3(unsigned(table.units)), dim3(gemm_mma::threads), gemm_mma::shared_bytes}, product_mma_kernel, table);
             });
}

void check_operands(const char* op, const std::vector<Tensor>& x, const std::vector<Tensor>& square) {
  check(x.size() == square.size(), "[", op, "] ", x.size(), " matrices, ", square.size(), " symmetric ones");
  for (size_t i = 0; i < x.size(); i++) {
    check(x[i].shape().rank() == 2 && x[i].size() > 0 && x[i].size() < int64_t(1) << 31, "[", op, "] a matrix expected, given ", x[i].shape());
    const int64_t n = std::min(x[i].dim(0), x[i].dim(1));
    check(square[i].shape() == Shape{n, n}, "[", op, "] ", x[i].shape(), " goes with [", n, ", ", n, "], given ", square[i].shape());
    check(x[i].dtype() == x[0].dtype() && square[i].dtype() == x[0].dtype(), "[", op, "] all must be ", x[0].dtype());
    check(x[i].device() == x[0].device() && square[i].device() == x[0].device(), "[", op, "] all must lie on ", x[0].device());
  }
}

int64_t bytes_of(const std::vector<Tensor>& all) {
  int64_t bytes = 0;
  for (const Tensor& t : all) bytes += int64_t(t.bytes());
  return bytes;
}

}  // namespace

void symmetric_products(const std::vector<Tensor>& x, const std::vector<Tensor>& c, const Quadratic& q) {
  check_operands("symmetric_products", x, c);
  for (size_t i = 0; i < x.size(); i++)
    check(q.linear == 0 || x[i].shape() == c[i].shape(), "[symmetric_products] a linear term asks for symmetric matrices, given ", x[i].shape());
  if (x.empty()) return;
  if (x[0].device().kind == Device::cpu && !dry_run()) {
    for (size_t i = 0; i < x.size(); i++) symmetric_product_host(x[i], c[i], q);
    return;
  }
  int64_t macs = 0;
  for (size_t i = 0; i < x.size(); i++) macs += x[i].size() * (c[i].dim(0) + 1) / 2;
  count_kernel({bytes_of(x)}, {bytes_of(c)}, macs, x[0].dtype() == DType::bf16 ? Units::tensor : Units::vector);
  if (!dry_run()) dispatch(x[0].dtype(), [&]<class T>() { symmetric_products_device<T>(x, c, q); });
}

void products_with_symmetric(const std::vector<Tensor>& s, const std::vector<Tensor>& x, const std::vector<Tensor>& y) {
  check_operands("products_with_symmetric", x, s);
  check(y.size() == x.size(), "[products_with_symmetric] ", x.size(), " matrices, ", y.size(), " results");
  for (size_t i = 0; i < x.size(); i++)
    check(y[i].shape() == x[i].shape() && y[i].dtype() == x[i].dtype() && y[i].device() == x[i].device(), "[products_with_symmetric] a result of ",
          y[i].shape(), ' ', y[i].dtype(), " on ", y[i].device(), " for ", x[i].shape(), ' ', x[i].dtype(), " on ", x[i].device());
  if (x.empty()) return;
  const bool on_device = x[0].device().kind == Device::cuda || dry_run();
  if (!on_device || x[0].dtype() != DType::bf16) {   // f32 and f64 by the library, whose products of these are whole
    for (size_t i = 0; i < x.size(); i++) product_host(s[i], x[i], y[i]);
    return;
  }
  int64_t macs = 0;
  for (size_t i = 0; i < x.size(); i++) macs += x[i].size() * s[i].dim(0);
  count_kernel({bytes_of(s), bytes_of(x)}, {bytes_of(y)}, macs);
  if (!dry_run()) products_device(s, x, y);
}
