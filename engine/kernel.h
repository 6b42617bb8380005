// kernel.h: the only door to CUDA. Under nvcc it opens on the device, under g++ on fibers over host memory; kernels are the same text.
#pragma once
#include "engine/check.h"
#include "engine/host_device.h"

#ifdef __CUDACC__
#include <cuda_runtime.h>
#include "engine/device_cuda.h"
#define DEVICE __device__ __forceinline__
#define KERNEL __global__ void

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
