// device.h: where numbers live, and the few things that must be asked of the place: memory, copies, order. CUDA itself stays behind
// device_cuda.cpp; in a build without it (device_fibers.cpp) `cuda` means host memory, and kernels run on fibers.
#pragma once
#include <cstddef>
#include <ostream>
#include <string>
#include <vector>

struct Device {
  enum Kind { cpu, cuda } kind = cpu;
  int index = 0;
  bool operator==(const Device&) const = default;
};

inline std::ostream& operator<<(std::ostream& out, Device device) {
  return device.kind == Device::cpu ? out << "cpu" : out << "cuda:" << device.index;
}

// One GPU that this build could use, or why it could not.
struct DeviceInfo {
  std::string name;
  int major = 0, minor = 0, multiprocessors = 0;   // compute capability
  size_t memory_bytes = 0, free_bytes = 0;
  std::string unusable;                            // empty: it can be used
};
DeviceInfo describe_device(int index);   // of one GPU
// The GPUs of this machine; `none` says why there are none.
std::vector<DeviceInfo> find_devices(std::string& none);
bool cuda_is_real();   // whether `cuda` is a GPU in this build, or fibers

// Long-lived memory, aligned to 256 bytes. Null if there is not so much of it.
void* device_allocate(Device device, size_t bytes);
void device_release(Device device, void* data);

// In the order of the device's one compute stream. A copy to or from the host has happened when it returns.
void copy_bytes(void* to, Device to_device, const void* from, Device from_device, size_t bytes);
void fill_bytes(void* to, Device device, unsigned char value, size_t bytes);
void synchronize(Device device);
