// device_cuda.cpp: devices through the CUDA runtime: memory, copies and the compute stream of each GPU.
#include "engine/device_cuda.h"

#include <algorithm>
#include <atomic>
#include <mutex>

#include "engine/capture_rules.h"
#include "engine/check.h"
#include "engine/device.h"

namespace {

constexpr int most_devices = 64;
std::atomic<int> in_use{0};   // a process computes on one GPU, on whichever of its threads

cudaMemcpyKind kind_of(Device to, Device from) {
  if (to.kind == Device::cuda) return from.kind == Device::cuda ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice;
  return from.kind == Device::cuda ? cudaMemcpyDeviceToHost : cudaMemcpyHostToHost;
}

// The stream of `device`, and the device made current on this thread.
cudaStream_t enter(Device device) {
  in_use = device.index;
  return compute_stream();
}

}  // namespace

void cuda_check(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return;
  fail(Exit::failure, "[cuda] ", call, ": ", cudaGetErrorString(error), "; `lipsgrad devices` says what can be used");
}

cudaStream_t compute_stream() {
  static std::mutex mutex;
  static cudaStream_t streams[most_devices] = {};
  const int index = in_use;
  cuda_check(cudaSetDevice(index), "cudaSetDevice");
  check(index < most_devices, "[cuda] more than ", most_devices, " GPUs");
  const std::lock_guard lock(mutex);
  if (!streams[index]) cuda_check(cudaStreamCreateWithFlags(&streams[index], cudaStreamNonBlocking), "cudaStreamCreate");
  return streams[index];
}

bool cuda_is_real() { return true; }

DeviceInfo describe_device(int index) {
  cudaDeviceProp properties;
  DeviceInfo info;
  if (const cudaError_t e = cudaGetDeviceProperties(&properties, index); e != cudaSuccess) {
    info.unusable = cudaGetErrorString(e);
    return info;
  }
  info.name = properties.name;
  info.major = properties.major, info.minor = properties.minor;
  info.multiprocessors = properties.multiProcessorCount;
  info.memory_bytes = properties.totalGlobalMem;
  int current = 0;   // asking for the free memory needs the device
  cudaGetDevice(&current);
  if (properties.major < 8) info.unusable = str("compute capability ", properties.major, '.', properties.minor, " is below 8.0");
  else if (const cudaError_t e = cudaSetDevice(index); e != cudaSuccess) info.unusable = cudaGetErrorString(e);
  else if (size_t total = 0; cudaMemGetInfo(&info.free_bytes, &total) != cudaSuccess) info.unusable = "its memory cannot be asked for";
  cudaSetDevice(current);
  return info;
}

std::vector<DeviceInfo> find_devices(std::string& none) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  std::vector<DeviceInfo> found;
  if (error != cudaSuccess || count == 0) {
    none = error == cudaSuccess ? "the driver sees no GPU" : str("the CUDA runtime says: ", cudaGetErrorString(error));
    return found;
  }
  for (int i = 0; i < count; i++) found.push_back(describe_device(i));
  return found;
}

void* device_allocate(Device device, size_t bytes) {
  forbid_in_capture(device, "an allocation");
  enter(device);
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, bytes);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();   // forget it: the caller says what to do
    return nullptr;
  }
  cuda_check(error, "cudaMalloc");
  return data;
}

void device_release(Device device, void* data) {
  cudaSetDevice(device.index);
  cudaFree(data);   // at exit the driver may be gone: nothing to do about it
}

void copy_bytes(void* to, Device to_device, const void* from, Device from_device, size_t bytes) {
  if (bytes == 0) return;
  const Device where = to_device.kind == Device::cuda ? to_device : from_device;
  const bool through_host = to_device.kind != from_device.kind;
  if (through_host) forbid_in_capture(where, "a copy to or from the host");
  if (where.kind == Device::cpu) {
    std::copy_n(static_cast<const char*>(from), bytes, static_cast<char*>(to));
    return;
  }
  const cudaStream_t stream = enter(where);
  cuda_check(cudaMemcpyAsync(to, from, bytes, kind_of(to_device, from_device), stream), "cudaMemcpyAsync");
  if (through_host) cuda_check(cudaStreamSynchronize(stream), "a copy");
}

void fill_bytes(void* to, Device device, unsigned char value, size_t bytes) {
  if (bytes == 0) return;
  if (device.kind == Device::cpu) std::fill_n(static_cast<unsigned char*>(to), bytes, value);
  else cuda_check(cudaMemsetAsync(to, value, bytes, enter(device)), "cudaMemsetAsync");
}

void synchronize(Device device) {
  if (device.kind == Device::cpu) return;
  forbid_in_capture(device, "a wait for the device");
  cuda_check(cudaStreamSynchronize(enter(device)), "cudaStreamSynchronize");
}
