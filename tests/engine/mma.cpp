// The tensor core's step and its helpers as fibers emulate them, against plain loops and against the layout as PTX's manual draws it.
#include <doctest/doctest.h>

#include <vector>

#include "engine/mma.h"
#include "schedules.h"

namespace {

// Numbers that bf16 holds, all different: a misplaced one shows. Products of them are exact, and so are short sums.
float left_number(int row, int k) { return float(row * 16 + k - 100); }
float right_number(int k, int column) { return float(k * 8 + column) / 2 - 30; }

// Each lane is given its numbers by the layout; the product is compared with the sum over k.
void product_kernel(float* product) {
  const int lane = int(lane_id()), g = lane / 4, c = lane % 4, warp = int(threadIdx.x / 32);
  const auto left = [](int row, int k) { return pack(left_number(row, k), left_number(row, k + 1)); };
  const auto right = [](int k, int column) { return pack(right_number(k, column), right_number(k + 1, column)); };
  const LeftFragment x = {left(g, 2 * c), left(g + 8, 2 * c), left(g, 2 * c + 8), left(g + 8, 2 * c + 8)};
  const RightFragment y = {right(2 * c, g), right(2 * c + 8, g)};
  ProductFragment z = {float(warp), float(warp), float(warp), float(warp)};
  mma(z, x, y);
  for (int i = 0; i < 4; i++) product[warp * 128 + (g + i / 2 * 8) * 8 + 2 * c + i % 2] = z.value[i];
}

// The same product with both operands from shared memory: left [16, 16]; right [8, 16], a row a column; or right [16, 8], transposed.
template <bool transposed> void shared_product_kernel(float* product) {
  const int lane = int(lane_id()), g = lane / 4, c = lane % 4;
  bf16 *left = dynamic_shared<bf16>(), *right = left + 256;
  for (int e = threadIdx.x; e < 256; e += 32) left[e] = bf16(left_number(e / 16, e % 16));
  for (int e = threadIdx.x; e < 128; e += 32) {
    const int k = transposed ? e / 8 : e % 16, column = transposed ? e % 8 : e / 16;
    right[e] = bf16(right_number(k, column));
  }
  __syncthreads();
  LeftFragment x;
  load_matrices<false>(x.word, left + lane % 16 * 16 + lane / 16 * 8);
  uint32_t y[4];   // only two matrices are there: the upper lanes name the same rows again
  load_matrices<transposed>(y, transposed ? right + lane % 16 * 8 : right + lane % 8 * 16 + lane / 8 % 2 * 8);
  ProductFragment z = {};
  mma(z, x, {y[0], y[1]});
  for (int i = 0; i < 4; i++) product[(g + i / 2 * 8) * 8 + 2 * c + i % 2] = z.value[i];
}

double plain_product(int row, int column) {
  double sum = 0;
  for (int k = 0; k < 16; k++) sum += double(left_number(row, k)) * right_number(k, column);
  return sum;
}

void transpose_kernel(uint32_t* words) {
  uint32_t word[4];
  for (int j = 0; j < 4; j++) word[j] = lane_id() * 4 + j;
  row_transpose(word);
  for (int j = 0; j < 4; j++) words[lane_id() * 4 + j] = word[j];
}

template <bool waits> void copy_kernel(const uint32_t* from, uint32_t* seen) {
  uint32_t* shared = dynamic_shared<uint32_t>();
  copy_async(shared + 4 * threadIdx.x, from + 4 * threadIdx.x);
  if (waits) copies_arrived();
  __syncthreads();
  for (int j = 0; j < 4; j++) seen[4 * threadIdx.x + j] = shared[4 * (threadIdx.x ^ 33) + j];
  copies_arrived();
}

void misaligned_kernel() {
  uint32_t word[4];
  load_matrices<false>(word, dynamic_shared<bf16>() + 4);
}

void row_kernel(float* sums, float* tops) {
  const unsigned i = threadIdx.x;
  sums[i] = row_sum(float(i));
  tops[i] = row_max(float(i));
}

// Runs the test's body in three schedules.
template <class F> void in_every_schedule(F&& body) {
  for (const unsigned schedule : schedules) {
    fibers::schedule = schedule;
    body();
  }
  fibers::schedule = 0;
}

}  // namespace

TEST_CASE("fibers: a step of the tensor cores is the product of what the lanes hold by the documented layout") {
  in_every_schedule([] {
    std::vector<float> product(3 * 128, -1);
    launch({dim3(1), dim3(96)}, product_kernel, product.data());
    for (int warp = 0; warp < 3; warp++)
      for (int e = 0; e < 128; e++) CHECK(product[warp * 128 + e] == plain_product(e / 8, e % 8) + warp);
  });
}

TEST_CASE("fibers: a step of the tensor cores on known numbers") {
  // By hand: row 0 is -100 .. -85, column 0 is -30, -26 .. 30: sum of (k - 100)(4k - 30) over k = 0 .. 15.
  CHECK(plain_product(0, 0) == 4 * 1240 - 430 * 120 + 16 * 3000);
  std::vector<float> product(128);
  launch({dim3(1), dim3(32)}, product_kernel, product.data());
  CHECK(product[0] == 1360);
}

TEST_CASE("fibers: operands of the tensor cores come out of shared memory as they are needed") {
  in_every_schedule([] {
    for (const auto kernel : {shared_product_kernel<false>, shared_product_kernel<true>}) {
      std::vector<float> product(128);
      launch({dim3(1), dim3(32), 384 * sizeof(bf16)}, kernel, product.data());
      for (int e = 0; e < 128; e++) CHECK(product[e] == plain_product(e / 8, e % 8));
    }
  });
  CHECK_THROWS_WITH(launch({dim3(1), dim3(32), 1024}, misaligned_kernel), doctest::Contains("multiple of 16"));
}

TEST_CASE("fibers: four lanes exchange their words") {
  std::vector<uint32_t> words(128);
  launch({dim3(1), dim3(32)}, transpose_kernel, words.data());
  for (unsigned lane = 0; lane < 32; lane++)
    for (unsigned j = 0; j < 4; j++) CHECK(words[lane * 4 + j] == (lane / 4 * 4 + j) * 4 + lane % 4);
}

TEST_CASE("fibers: sums and maxima over the four lanes of a row") {
  std::vector<float> sums(64), tops(64);
  launch({dim3(1), dim3(64)}, row_kernel, sums.data(), tops.data());
  for (int i = 0; i < 64; i++) {
    CHECK(sums[i] == i / 4 * 16 + 6);
    CHECK(tops[i] == i / 4 * 4 + 3);
  }
}

TEST_CASE("fibers: a copy on its way has arrived after the wait, and not before") {
  std::vector<uint32_t> from(256), seen(256);
  for (unsigned i = 0; i < 256; i++) from[i] = 7 * i;
  in_every_schedule([&] {
    launch({dim3(1), dim3(64), 1024}, copy_kernel<true>, from.data(), seen.data());
    for (unsigned i = 0; i < 256; i++) CHECK(seen[i] == 7 * (((i / 4) ^ 33) * 4 + i % 4));
  });
  launch({dim3(1), dim3(64), 1024}, copy_kernel<false>, from.data(), seen.data());
  int poisoned = 0;
  for (const uint32_t word : seen) poisoned += word == ~0u;
  CHECK(poisoned >= 128);   // what other threads had not yet waited for
}

TEST_CASE("fibers: two numbers packed are rounded like one") {
  for (const float x : {0.0f, 1.0f, -3.14159f, 1e-30f, 65280.5f})
    for (const float y : {2.71828f, -0.0f, 1e30f}) {
      CHECK(low_half(pack(x, y)) == float(bf16(x)));
      CHECK(high_half(pack(x, y)) == float(bf16(y)));
    }
  CHECK(exp2_approx(-3) == 0.125f);
  CHECK(exp2_approx(-1e30f) == 0);
  CHECK(std::isnan(exp2_approx(NAN)));
}
