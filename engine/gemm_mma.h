// gemm_mma.h: products of bf16 on the tensor cores whose results pass through a functor in f32 before they are stored: for what no library's
// epilogue has, as the erf form of GELU, two results of one product, or a factor that is read where the result goes. Its parts also make the
// products of many matrices in one launch (engine/symmetric_products.cu).
//
// A block of 8 warps makes 128 x 128 results, each warp 64 x 32, over steps of 32 terms. Three steps' operands lie in shared memory, so that
// two are on their way while one is multiplied.
#pragma once
#include <algorithm>

#include "engine/mma.h"

namespace gemm_mma {

constexpr int side = 128, depth = 32, steps_held = 3, threads = 256;
constexpr int warp_rows = 64, warp_columns = 32;

// scale A B + bias: A [m, k] and B [k, n], each also stored the other way; bias [n] in f32. Scale and bias may be null.
struct Product {
  const bf16 *a, *b;
  const float *scale, *bias;
  int m, n, k;
};

// Rows are gone through 16 bytes at a time.
inline bool fits(int64_t m, int64_t n, int64_t k) {
  return m > 0 && n > 0 && k > 0 && n % 8 == 0 && k % 8 == 0 && std::max({m, n, k}) <= int64_t(1) << 30;
}

// The piece of a line that begins at `column`, number by number: for lines that are no whole pieces. Zeros where the matrix [height, width] ends.
DEVICE Piece gathered_piece(const bf16* matrix, int row, int height, int column, int width) {
  Piece piece = {};
  if (row >= height) return piece;
  UNROLL for (int j = 0; j < 8; j++)
    if (column + j < width) piece.word[j / 2] |= uint32_t(matrix[int64_t(row) * width + column + j].bits) << 16 * (j % 2);
  return piece;
}

// Begins to copy the part of a matrix [height, width] that a tile covers; zeros where it ends. whole: its lines are whole pieces.
template <int dim> DEVICE void load_tile(const Tile<dim>& tile, const bf16* matrix, int first_row, int height, int first_column, int width, bool whole) {
  constexpr int pieces = Tile<dim>::pieces, all = side * depth / 8;
  if (!whole) {
    for (int e = int(threadIdx.x); e < all; e += threads)
      store_piece(tile.piece(e / pieces, e % pieces),
                  gathered_piece(matrix, first_row + e / pieces, height, first_column + e % pieces * 8, width).word);
    return;
  }
  UNROLL for (int i = 0; i < all / threads; i++) {
    const int e = i * threads + int(threadIdx.x), line = e / pieces, p = e % pieces, row = first_row + line, column = first_column + 8 * p;
    const bool there = row < height && column < width;
    copy_async(tile.piece(line, p), there ? matrix + int64_t(row) * width + column : matrix, there);
  }
}

// A step's operands as they are stored: of A its 128 rows, of B its 128 columns.
template <bool transposed_a, bool transposed_b> struct Step {
  Tile<transposed_a ? side : depth> a;
  Tile<transposed_b ? depth : side> b;
  DEVICE explicit Step(int step) {
    bf16* at = dynamic_shared<bf16>() + step % steps_held * 2 * side * depth;
    a.data = at;
    b.data = at + side * depth;
  }
};
constexpr size_t shared_bytes = size_t(steps_held) * 2 * side * depth * sizeof(bf16);

template <bool transposed_a, bool transposed_b> DEVICE void load_step(const Product& g, int first_row, int first_column, int step, bool whole) {
  const Step<transposed_a, transposed_b> to(step);
  const int term = step * depth;
  if (term < g.k) {
    if constexpr (transposed_a) load_tile(to.a, g.a, term, g.k, first_row, g.m, whole);
    else load_tile(to.a, g.a, first_row, g.m, term, g.k, whole);
    if constexpr (transposed_b) load_tile(to.b, g.b, first_column, g.n, term, g.k, whole);
    else load_tile(to.b, g.b, term, g.k, first_column, g.n, whole);
  }
  end_copy_group();
}

using Sums = ProductFragment[4][4];   // of a warp

// sum += a step's share of the warp's results.
template <bool transposed_a, bool transposed_b>
DEVICE void multiply_step(const Step<transposed_a, transposed_b>& operands, int row, int column, Sums& sum) {
  const int lane = int(lane_id());
  UNROLL for (int s = 0; s < depth / 16; s++) {
    LeftFragment left[4];
    RightFragment right[4];
    UNROLL for (int i = 0; i < 4; i++) {
      if constexpr (transposed_a)
        load_matrices<true>(left[i].word, operands.a.piece(16 * s + lane / 16 * 8 + lane % 8, row / 8 + 2 * i + lane / 8 % 2));
      else load_matrices<false>(left[i].word, operands.a.piece(row + 16 * i + lane % 16, 2 * s + lane / 16));
    }
    UNROLL for (int t = 0; t < 4; t += 2) {
      uint32_t word[4];
      if constexpr (transposed_b) load_matrices<false>(word, operands.b.piece(column + 8 * t + lane / 16 * 8 + lane % 8, 2 * s + lane / 8 % 2));
      else load_matrices<true>(word, operands.b.piece(16 * s + lane % 16, column / 8 + t + lane / 16));
      right[t] = {word[0], word[1]};
      right[t + 1] = {word[2], word[3]};
    }
    UNROLL for (int i = 0; i < 4; i++)
      UNROLL for (int t = 0; t < 4; t++) mma(sum[i][t], left[i], right[t]);
  }
}

// Where a warp's results lie in the block's.
DEVICE int warp_row() { return int(threadIdx.x) / 32 % 2 * warp_rows; }
DEVICE int warp_column() { return int(threadIdx.x) / 64 * warp_columns; }

// sum += the warp's share of A B in the block whose results begin at (first_row, first_column).
template <bool transposed_a, bool transposed_b> DEVICE void multiply(const Product& g, int first_row, int first_column, bool whole, Sums& sum) {
  UNROLL for (int step = 0; step + 1 < steps_held; step++) load_step<transposed_a, transposed_b>(g, first_row, first_column, step, whole);
  const int steps = (g.k + depth - 1) / depth;
  for (int step = 0; step < steps; step++) {
    copy_groups_arrived<steps_held - 2>();
    __syncthreads();   // the step has arrived for all threads, and none works on the one before any more
    load_step<transposed_a, transposed_b>(g, first_row, first_column, step + steps_held - 1, whole);
    multiply_step(Step<transposed_a, transposed_b>(step), warp_row(), warp_column(), sum);
  }
}

// f(row, column, value): the warp's results, 8 of a row at a time, in the block's rows and columns. All lanes.
template <class F> DEVICE void each_piece(const Sums& sum, F&& f) {
  const int lane = int(lane_id()), column = warp_column() + lane % 4 * 8;
  UNROLL for (int i = 0; i < 4; i++)
    UNROLL for (int h = 0; h < 2; h++) {
      uint32_t even[4], odd[4];
      UNROLL for (int t = 0; t < 4; t++) {
        even[t] = std::bit_cast<uint32_t>(sum[i][t].value[2 * h]);
        odd[t] = std::bit_cast<uint32_t>(sum[i][t].value[2 * h + 1]);
      }
      row_transpose(even);
      row_transpose(odd);
      float value[8];
      UNROLL for (int j = 0; j < 8; j++) value[j] = std::bit_cast<float>(j % 2 ? odd[j / 2] : even[j / 2]);
      f(warp_row() + 16 * i + 8 * h + lane / 4, column, value);
    }
}

// 8 numbers, rounded.
DEVICE Piece rounded(const float (&value)[8]) {
  return {pack(value[0], value[1]), pack(value[2], value[3]), pack(value[4], value[5]), pack(value[6], value[7])};
}

// finish(row, column, value): 8 results from `column` on, in f32.
template <bool transposed_b, class Finish> KERNEL __launch_bounds__(threads, 2) gemm_mma_kernel(Product g, Finish finish) {
  const int across = (g.n + side - 1) / side;
  const int first_row = int(blockIdx.x / across) * side;   // neighbours read the same rows of A
  const int first_column = int(blockIdx.x % across) * side;
  Sums sum = {};
  multiply<false, transposed_b>(g, first_row, first_column, true, sum);

  const float scale = g.scale ? *g.scale : 1.0f;
  each_piece(sum, [&](int block_row, int block_column, float (&value)[8]) {
    const int row = first_row + block_row, column = first_column + block_column;
    if (row >= g.m || column >= g.n) return;
    UNROLL for (int j = 0; j < 8; j++) {
      const float bias = g.bias ? g.bias[column + j] : 0.0f;   // from the cache each time, which spares registers
      value[j] = scale * value[j] + bias;
    }
    finish(row, column, value);
  });
}

template <bool transposed_b, class Finish> void run(const Product& g, const Finish& finish) {
  const int64_t tiles = int64_t((g.m + side - 1) / side) * ((g.n + side - 1) / side);
  check(tiles < int64_t(1) << 31, "[gemm] ", g.m, " x ", g.n, " results are too many for one kernel");
  launch({dim3(unsigned(tiles)), dim3(threads), shared_bytes}, gemm_mma_kernel<transposed_b, Finish>, g, finish);
}

}  // namespace gemm_mma
