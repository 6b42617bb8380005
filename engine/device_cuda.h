// device_cuda.h: what the CUDA files share: the stream that all work of a GPU goes to, and errors with their call.
#pragma once
#include <cuda_runtime_api.h>

// Throws "[cuda] CALL: REASON" for anything but success.
void cuda_check(cudaError_t error, const char* call);
// The compute stream of the GPU that this process computes on, which becomes this thread's device.
cudaStream_t compute_stream();
