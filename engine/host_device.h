// host_device.h: HD marks a function that runs on the host and on the device. The lowest header of the house.
#pragma once
#ifdef __CUDACC__
#define HD __host__ __device__ __forceinline__
#else
#define HD inline
#endif
