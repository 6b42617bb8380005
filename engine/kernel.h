// kernel.h: the only door to CUDA. Under nvcc it opens on the device, under g++ on fibers over host memory; kernels are the same text.
#pragma once
#include "engine/check.h"
#include "engine/host_device.h"

#ifdef __CUDACC__
#include <cuda_runtime.h>
#include "engine/device_cuda.h"
#define DEVICE __device__ __forceinline__
#define KERNEL __global__ void
#define UNROLL _Pragma("unroll")

template <class T> DEVICE T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char dynamic_shared_bytes[];
  return reinterpret_cast<T*>(dynamic_shared_bytes);
}
DEVICE unsigned lane_id() { return threadIdx.x % 32; }

struct Launch {
  dim3 grid, block;
  size_t shared = 0;
};

// On the compute stream of the current device.
template <class... P, class... A> void launch(const Launch& l, void (*kernel)(P...), A... args) {
  if (l.shared > 48 * 1024)
    cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(l.shared)), "cudaFuncSetAttribute");
  kernel<<<l.grid, l.block, l.shared, compute_stream()>>>(P(args)...);
  cuda_check(cudaGetLastError(), "a kernel's launch");
}
#else
#include <cmath>
#include "engine/fibers.h"
#define DEVICE inline
#define KERNEL inline void
#define UNROLL
#endif

// Sums and maxima over the 32 lanes of a warp; every lane gets the result, in the same order of operations each time.
template <class T> DEVICE T warp_sum(T v) {
  for (int mask = 16; mask > 0; mask /= 2) v += __shfl_xor_sync(~0u, v, mask);
  return v;
}
template <class T> DEVICE T warp_max(T v) {
  for (int mask = 16; mask > 0; mask /= 2) {
    const T other = __shfl_xor_sync(~0u, v, mask);
    v = v > other ? v : other;
  }
  return v;
}

// 16 bytes of global memory at once: from and to must be aligned to 16. The fibers say so where they are not.
struct alignas(16) Bytes16 {
  uint32_t word[4];
};
DEVICE Bytes16 load16(const void* from) {
#ifdef __CUDACC__
  return *static_cast<const Bytes16*>(from);
#else
  check(reinterpret_cast<uintptr_t>(from) % 16 == 0, "[load16] not aligned to 16 bytes");
  Bytes16 words;
  std::memcpy(&words, from, 16);
  return words;
#endif
}
DEVICE void store16(void* to, const Bytes16& words) {
#ifdef __CUDACC__
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};"   // left to itself, nvcc splits some of them
               :: "l"(__cvta_generic_to_global(to)), "r"(words.word[0]), "r"(words.word[1]), "r"(words.word[2]), "r"(words.word[3]) : "memory");
#else
  check(reinterpret_cast<uintptr_t>(to) % 16 == 0, "[store16] not aligned to 16 bytes");
  std::memcpy(to, &words, 16);
#endif
}
