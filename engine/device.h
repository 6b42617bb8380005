// device.h: where numbers live. In a build without CUDA, `cuda` means kernels on fibers over host memory.
#pragma once
#include <ostream>

struct Device {
  enum Kind { cpu, cuda } kind = cpu;
  int index = 0;
  bool operator==(const Device&) const = default;
};

inline std::ostream& operator<<(std::ostream& out, Device device) {
  return device.kind == Device::cpu ? out << "cpu" : out << "cuda:" << device.index;
}
