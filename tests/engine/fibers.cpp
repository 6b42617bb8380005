// Kernels without a GPU: barriers, shuffles and shared memory are right, and mistakes in kernels are found.
//
// The cases named "planted" hold a mistake on purpose. They are skipped unless asked for (--no-skip) and end the process in a
// sanitizer build; the cases "finds" run them in a process of their own and look at how it ended.
#include <doctest/doctest.h>

#include <array>
#include <cstdio>
#include <numeric>

#include "engine/kernel.h"

namespace {

// Sum of a block's numbers: each warp adds its own by shuffles, the first warp adds the warps'. The second barrier keeps a fast
// warp of the next round from writing over sums that others still read.
template <bool second_barrier> float block_sum(float v) {
  __shared__ float sums[32];
  const unsigned warp = threadIdx.x / 32, warps = blockDim.x / 32;
  v = warp_sum(v);
  if (lane_id() == 0) sums[warp] = v;
  __syncthreads();
  float total = 0;
  for (unsigned w = 0; w < warps; w++) total += sums[w];
  if (second_barrier) __syncthreads();
  return total;
}

template <bool second_barrier> void sum_kernel(const float* x, float* y, int rounds) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  float v = x[i];
  for (int r = 0; r < rounds; r++) v = v + 0.001f * block_sum<second_barrier>(v);
  y[i] = v;
}

void scratch_kernel(float* y, int n) {   // reverses a block through dynamic shared memory of n floats
  float* shared = dynamic_shared<float>();
  shared[threadIdx.x] = float(threadIdx.x);
  __syncthreads();
  y[threadIdx.x] = shared[n - 1 - threadIdx.x];
}

void early_return_kernel(float* y) {
  if (threadIdx.x < 5) return;
  __syncthreads();
  y[threadIdx.x] = 1;
}

void divergent_warp_kernel(float* y) {
  if (threadIdx.x % 2) y[threadIdx.x] = warp_sum(1.0f);
  else __syncthreads();
}

void unwritten_kernel(float* y) {
  y[threadIdx.x] = dynamic_shared<float>()[threadIdx.x];
}

void shuffle_kernel(int* y) {
  const int lane = int(lane_id()), i = int(threadIdx.x);
  y[i] = __shfl_sync(~0u, i, 3);
  y[128 + i] = __shfl_xor_sync(~0u, i, 5);
  y[256 + i] = __shfl_down_sync(~0u, lane, 4);
  y[384 + i] = warp_max(i);
}

void place_kernel(int* seen) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  seen[block * blockDim.count() + thread]++;
}

constexpr int threads = 128, blocks = 3, rounds = 4;

template <bool second_barrier> double worst_error_of_sums(unsigned schedule) {
  std::vector<float> x(threads * blocks), y(x.size());
  for (size_t i = 0; i < x.size(); i++) x[i] = std::sin(0.37f * float(i)) + float(i / 32);
  fibers::schedule = schedule;
  launch({dim3(blocks), dim3(threads)}, sum_kernel<second_barrier>, x.data(), y.data(), rounds);
  fibers::schedule = 0;
  double worst = 0;
  for (int b = 0; b < blocks; b++) {
    std::vector<double> v(x.begin() + b * threads, x.begin() + (b + 1) * threads);
    for (int r = 0; r < rounds; r++) {
      const double total = std::accumulate(v.begin(), v.end(), 0.0);
      for (double& e : v) e += 0.001 * total;
    }
    for (int i = 0; i < threads; i++) worst = std::max(worst, std::abs(v[i] - y[b * threads + i]));
  }
  return worst;
}

[[maybe_unused]] std::string output_of(const std::string& planted) {
  const std::string command = str("OMP_NUM_THREADS=1 '", BINARY_DIR, "/test_engine' --no-skip '-tc=", planted, "' 2>&1");
  FILE* pipe = popen(command.c_str(), "r");
  REQUIRE(pipe);
  std::string out;
  std::array<char, 4096> buffer;
  while (const size_t n = fread(buffer.data(), 1, buffer.size(), pipe)) out.append(buffer.data(), n);
  const int status = pclose(pipe);
  CHECK_MESSAGE(status != 0, planted, " ended as if all were well");
  return out;
}

}  // namespace

TEST_CASE("fibers: a block reduction is right in every schedule") {
  for (const unsigned schedule : {0u, 1u, 2u, 3u, 7u}) CHECK(worst_error_of_sums<true>(schedule) < 1e-4);
}

#ifndef __SANITIZE_THREAD__   // where it would end the process, as it should
TEST_CASE("fibers: a missing barrier shows as a wrong number") {
  int found = 0;
  for (const unsigned schedule : {0u, 1u, 2u}) found += worst_error_of_sums<false>(schedule) > 1e-2;
  CHECK(found >= 1);
}
#endif

TEST_CASE("fibers: dynamic shared memory has its size, and is NaN before it is written") {
  std::vector<float> y(threads);
  launch({dim3(1), dim3(threads), threads * sizeof(float)}, scratch_kernel, y.data(), threads);
  for (int i = 0; i < threads; i++) CHECK(y[i] == threads - 1 - i);
  launch({dim3(2), dim3(threads), threads * sizeof(float)}, unwritten_kernel, y.data());
  for (const float v : y) CHECK(std::isnan(v));
}

TEST_CASE("fibers: threads that part at a barrier raise, and the next launch works") {
  std::vector<float> y(64);
  for (const unsigned schedule : {0u, 1u, 2u}) {
    fibers::schedule = schedule;
    CHECK_THROWS_WITH_AS(launch({dim3(1), dim3(64)}, early_return_kernel, y.data()), doctest::Contains("59 of 64 threads wait"), std::runtime_error);
    CHECK_THROWS_WITH_AS(launch({dim3(1), dim3(64)}, divergent_warp_kernel, y.data()), doctest::Contains("divergent warp"), std::runtime_error);
  }
  fibers::schedule = 0;
  CHECK(worst_error_of_sums<true>(0) < 1e-4);
}

TEST_CASE("fibers: shuffles stay inside their warp") {
  std::vector<int> y(4 * 128);
  for (const unsigned schedule : {0u, 1u, 2u}) {
    fibers::schedule = schedule;
    launch({dim3(1), dim3(128)}, shuffle_kernel, y.data());
    for (int i = 0; i < 128; i++) {
      CHECK(y[i] == i / 32 * 32 + 3);
      CHECK(y[128 + i] == (i ^ 5));
      CHECK(y[256 + i] == (i % 32 + 4 < 32 ? i % 32 + 4 : i % 32));
      CHECK(y[384 + i] == i / 32 * 32 + 31);
    }
  }
  fibers::schedule = 0;
}

TEST_CASE("fibers: every thread of every block runs once, in three dimensions") {
  std::vector<int> seen(2 * 3 * 2 * 40);
  launch({dim3(2, 3, 2), dim3(5, 4, 2)}, place_kernel, seen.data());
  for (const int n : seen) CHECK(n == 1);
}

TEST_CASE("fibers: an exception in a kernel comes out of launch") {
  void (*kernel)(int) = [](int limit) { check(int(threadIdx.x) < limit, "[kernel] thread ", threadIdx.x); };
  CHECK_THROWS_WITH_AS(launch({dim3(1), dim3(64)}, kernel, 40), doctest::Contains("[kernel] thread 40"), Error);
}

TEST_CASE("planted: missing barrier" * doctest::skip()) {
  CHECK(worst_error_of_sums<false>(0) < 1e-4);
}

TEST_CASE("planted: overrun of shared memory" * doctest::skip()) {
  std::vector<float> y(threads);
  launch({dim3(1), dim3(threads), (threads - 1) * sizeof(float)}, scratch_kernel, y.data(), threads - 1);
}

#ifdef __SANITIZE_THREAD__
TEST_CASE("fibers: the thread sanitizer finds the missing barrier and names both lines") {
  const std::string out = output_of("planted: missing barrier");
  CHECK(out.find("ThreadSanitizer: data race") != std::string::npos);
  CHECK(out.find("block_sum<false>") != std::string::npos);
}
#endif
#ifdef __SANITIZE_ADDRESS__
TEST_CASE("fibers: the address sanitizer finds the overrun of shared memory and names its line") {
  const std::string out = output_of("planted: overrun of shared memory");
  CHECK(out.find("AddressSanitizer: heap-buffer-overflow") != std::string::npos);
  CHECK(out.find("scratch_kernel") != std::string::npos);
}
#endif
