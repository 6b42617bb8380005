// mma.h: one step of the tensor cores, and how its operands come out of shared memory. On fibers every lane computes its share of the step
// from the layout that PTX documents, so that a kernel which deals its numbers out wrongly is wrong here too.
//
// Lane l stands in row g = l / 4 and column c = l % 4 of a warp. A word holds two bf16, the one of the lower index in its lower half:
//   left     16 x 16   word 0: (g, 2c), word 1: (g + 8, 2c), word 2: (g, 2c + 8), word 3: (g + 8, 2c + 8), each with its right neighbour
//   right    16 x 8    word 0: (2c, g), word 1: (2c + 8, g), each with its lower neighbour
//   product  16 x 8    value 0, 1: (g, 2c), (g, 2c + 1); value 2, 3: (g + 8, 2c), (g + 8, 2c + 1)
#pragma once
#include <bit>
#include <cstdint>

#include "engine/dtype.h"
#include "engine/kernel.h"

// Written before a loop whose counter picks registers.
#ifdef __CUDACC__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL
#endif

struct LeftFragment { uint32_t word[4]; };
struct RightFragment { uint32_t word[2]; };
struct ProductFragment { float value[4]; };

// Two numbers as one word of bf16, rounded to nearest even, and back.
DEVICE float low_half(uint32_t word) { return std::bit_cast<float>(word << 16); }
DEVICE float high_half(uint32_t word) { return std::bit_cast<float>(word & 0xffff0000u); }
DEVICE uint32_t pack(float low, float high) {
#ifdef __CUDA_ARCH__
  uint32_t word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
#else
  return bf16(low).bits | uint32_t(bf16(high).bits) << 16;
#endif
}

// 2^x within 2 ULP; below -126 it is 0.
DEVICE float exp2_approx(float x) {
#ifdef __CUDA_ARCH__
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return x < -126 ? 0.0f : std::exp2(x);
#endif
}

#ifndef __CUDACC__
namespace fibers {

// What the lanes of a block show one another in a step: operands, or the address of a row.
struct MatrixSlot {
  uint32_t left[4], right[2];
  const unsigned char* row;
};
inline thread_local MatrixSlot matrix_slots[1024];
inline MatrixSlot& matrix_slot(unsigned lane) { return matrix_slots[block->current->index / 32 * 32 + lane]; }

inline void check_piece(const void* at) {
  if (reinterpret_cast<uintptr_t>(at) % 16 != 0) throw std::runtime_error("16 bytes at once must lie at a multiple of 16");
}

}  // namespace fibers
#endif

// product += left right. All lanes of the warp.
DEVICE void mma(ProductFragment& product, const LeftFragment& left, const RightFragment& right) {
#ifdef __CUDA_ARCH__
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(product.value[0]), "+f"(product.value[1]), "+f"(product.value[2]), "+f"(product.value[3])
               : "r"(left.word[0]), "r"(left.word[1]), "r"(left.word[2]), "r"(left.word[3]), "r"(right.word[0]), "r"(right.word[1]));
#elif !defined(__CUDACC__)
  const unsigned lane = lane_id(), g = lane / 4, c = lane % 4;
  auto& mine = fibers::matrix_slot(lane);
  std::copy_n(left.word, 4, mine.left);
  std::copy_n(right.word, 2, mine.right);
  __syncwarp();
  for (unsigned k = 0; k < 16; k += 2)   // a word is two steps of k
    for (unsigned i = 0; i < 4; i++) {
      const unsigned owner = k % 8 / 2;
      const uint32_t x = fibers::matrix_slot(g * 4 + owner).left[i / 2 + k / 8 * 2];
      const uint32_t y = fibers::matrix_slot((2 * c + i % 2) * 4 + owner).right[k / 8];
      product.value[i] += low_half(x) * low_half(y) + high_half(x) * high_half(y);
    }
  __syncwarp();
#endif
}

// Four matrices of 8 x 8 bf16 from shared memory. Lane l names row l % 8 of matrix l / 8; of matrix m it gets the numbers (g, 2c) and
// (g, 2c + 1) in word m, or (2c, g) and (2c + 1, g) of it transposed. All lanes of the warp; rows lie at multiples of 16 bytes.
template <bool transposed> DEVICE void load_matrices(uint32_t (&word)[4], const bf16* row) {
#ifdef __CUDA_ARCH__
  const uint32_t address = uint32_t(__cvta_generic_to_shared(row));
  if constexpr (transposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(word[0]), "=r"(word[1]), "=r"(word[2]), "=r"(word[3]) : "r"(address) : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(word[0]), "=r"(word[1]), "=r"(word[2]), "=r"(word[3]) : "r"(address) : "memory");
#elif !defined(__CUDACC__)
  const unsigned lane = lane_id(), g = lane / 4, c = lane % 4;
  fibers::check_piece(row);
  fibers::matrix_slot(lane).row = reinterpret_cast<const unsigned char*>(row);
  __syncwarp();
  const auto number = [](unsigned matrix, unsigned row, unsigned column) {
    uint16_t bits;
    std::memcpy(&bits, fibers::matrix_slot(matrix * 8 + row).row + 2 * column, 2);
    return uint32_t(bits);
  };
  for (unsigned m = 0; m < 4; m++)
    word[m] = transposed ? number(m, 2 * c, g) | number(m, 2 * c + 1, g) << 16 : number(m, g, 2 * c) | number(m, g, 2 * c + 1) << 16;
  __syncwarp();
#endif
}

// Begins to copy 16 bytes from device memory to shared memory, or zeros if there is nothing `there`; they are in place after this thread's
// copies_arrived().
DEVICE void copy_async(void* to, const void* from, bool there = true) {
#ifdef __CUDA_ARCH__
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" :: "r"(uint32_t(__cvta_generic_to_shared(to))), "l"(from), "r"(there ? 16 : 0) : "memory");
#elif !defined(__CUDACC__)
  fibers::check_piece(to);
  if (there) fibers::check_piece(from);
  std::memset(to, 0xFF, 16);
  fibers::block->current->pending.copies.push_back({to, there ? from : nullptr});
#endif
}
DEVICE void copies_arrived() {
#ifdef __CUDA_ARCH__
  asm volatile("cp.async.wait_all;" ::: "memory");
#elif !defined(__CUDACC__)
  auto& pending = fibers::block->current->pending;
  pending.finish(pending.copies.size());
  pending.groups.clear();
#endif
}

// What this thread has begun to copy since the last call becomes a group, be it empty.
DEVICE void end_copy_group() {
#ifdef __CUDA_ARCH__
  asm volatile("cp.async.commit_group;" ::: "memory");
#elif !defined(__CUDACC__)
  auto& pending = fibers::block->current->pending;
  pending.groups.push_back(pending.copies.size());
#endif
}
// Waits for all of this thread's groups but the last `but`.
template <int but> DEVICE void copy_groups_arrived() {
#ifdef __CUDA_ARCH__
  asm volatile("cp.async.wait_group %0;" :: "n"(but) : "memory");
#elif !defined(__CUDACC__)
  auto& pending = fibers::block->current->pending;
  if (pending.groups.size() <= but) return;
  const size_t arrived = pending.groups.size() - but, count = pending.groups[arrived - 1];
  pending.finish(count);
  pending.groups.erase(pending.groups.begin(), pending.groups.begin() + ptrdiff_t(arrived));
  for (size_t& end : pending.groups) end -= count;
#endif
}

// Sums and maxima over the four lanes of a row, in the same order of operations each time.
DEVICE float row_sum(float v) {
  v += __shfl_xor_sync(~0u, v, 1);
  return v + __shfl_xor_sync(~0u, v, 2);
}
DEVICE float row_max(float v) {
  for (int mask = 1; mask < 4; mask *= 2) {
    const float other = __shfl_xor_sync(~0u, v, mask);
    v = v > other ? v : other;
  }
  return v;
}

// Word j of the lane in column c changes places with word c of the lane in column j of the same row: the words of four product fragments
// become 16 bytes that follow one another, and back.
DEVICE void row_transpose(uint32_t (&word)[4]) {
  const bool odd = lane_id() & 1, upper = lane_id() & 2;
  for (int j = 0; j < 4; j += 2) {
    const uint32_t other = __shfl_xor_sync(~0u, odd ? word[j] : word[j + 1], 1);
    (odd ? word[j] : word[j + 1]) = other;
  }
  for (int j = 0; j < 2; j++) {
    const uint32_t other = __shfl_xor_sync(~0u, upper ? word[j] : word[j + 2], 2);
    (upper ? word[j] : word[j + 2]) = other;
  }
}

// 16 bytes of a row.
struct alignas(16) Piece { uint32_t word[4]; };
DEVICE Piece load_piece(const bf16* from) { return *reinterpret_cast<const Piece*>(from); }
DEVICE void store_piece(bf16* to, const uint32_t (&word)[4]) { *reinterpret_cast<Piece*>(to) = {word[0], word[1], word[2], word[3]}; }

// Rows of dim (32, 64, 128) numbers in shared memory. Their pieces are turned, so that those of one column in 8 rows on end lie in different banks.
template <int dim> struct Tile {
  static constexpr int pieces = dim / 8;
  bf16* data;
  DEVICE bf16* piece(int row, int p) const { return data + (row * pieces + (p ^ (dim == 32 ? row / 2 % 4 : row % 8))) * 8; }
  // Numbers `column` and `column` + 1 of a row.
  DEVICE uint32_t pair(int row, int column) const { return *reinterpret_cast<const uint32_t*>(piece(row, column / 8) + column % 8); }
};
