// capture_rules.h: what must not happen while a step is captured: the host may not wait for the device, read from it or ask it for memory.
#pragma once
#include "engine/device.h"

// While it lives, whatever the host may not do during a capture throws an error that names it; on every build.
class CaptureRules {
 public:
  explicit CaptureRules(Device device);
  ~CaptureRules();
  CaptureRules(const CaptureRules&) = delete;

 private:
  const bool counted_;   // nothing is captured on the CPU
};
bool capturing();
// Throws if `device` is a GPU and this thread captures: `what` is what was about to happen.
void forbid_in_capture(Device device, const char* what);
