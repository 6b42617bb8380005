// capture_rules.cpp: the rules of a capture, kept on machines without a GPU too.
#include "engine/capture_rules.h"

#include "engine/check.h"

namespace {
thread_local int depth = 0;
}

CaptureRules::CaptureRules(Device device) : counted_(device.kind == Device::cuda) { depth += counted_; }
CaptureRules::~CaptureRules() { depth -= counted_; }
bool capturing() { return depth > 0; }

void forbid_in_capture(Device device, const char* what) {
  check(device.kind != Device::cuda || depth == 0, "[capture] ", what, " inside a step that is captured: the step must run without the host");
}
