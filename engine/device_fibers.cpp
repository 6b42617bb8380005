// device_fibers.cpp: devices in a build without CUDA. All memory is the host's; the rules of a GPU are still kept by capture.cpp.
#include <cstdlib>
#include <cstring>

#include "engine/check.h"
#include "engine/device.h"
#include "engine/capture_rules.h"

std::vector<DeviceInfo> find_devices(std::string& none) {
  none = "this build has no CUDA: configure with -DLIPSGRAD_CUDA=ON where the CUDA Toolkit is installed; until then `cuda` runs its kernels on fibers";
  return {};
}

DeviceInfo describe_device(int) { return {.unusable = "this build has no CUDA"}; }

bool cuda_is_real() { return false; }

void* device_allocate(Device device, size_t bytes) {
  forbid_in_capture(device, "an allocation");
  return std::aligned_alloc(256, (bytes + 255) / 256 * 256);
}

void device_release(Device, void* data) { std::free(data); }

void copy_bytes(void* to, Device to_device, const void* from, Device from_device, size_t bytes) {
  if (to_device.kind != from_device.kind) forbid_in_capture(to_device.kind == Device::cuda ? to_device : from_device, "a copy to or from the host");
  if (bytes) std::memmove(to, from, bytes);
}

void fill_bytes(void* to, Device, unsigned char value, size_t bytes) {
  if (bytes) std::memset(to, value, bytes);
}

void synchronize(Device device) { forbid_in_capture(device, "a wait for the device"); }
