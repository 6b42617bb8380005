// trial.h: runs inputs in a process of their own, which may crash, and says what became of them.
#pragma once
#include <cstdint>
#include <functional>
#include <string>

#include "target.h"

// One input may take this much under the sanitizers.
constexpr int most_seconds = 2;           // of processor time
constexpr int64_t most_memory = 64 << 20;   // bytes allocated at once

struct Trial {
  uint64_t stopped_at = 0;   // the number of the input that ended it; `end` where none did
  std::string why;           // empty: none did
};
// Inputs number [begin, end) of a target, in order, to the first finding: a Finding, any other exception, a crash, a sanitizer's report, too
// much time or memory, memory that is not given back. quiet: the sanitizer's report goes nowhere.
Trial try_inputs(const FuzzTarget&, uint64_t begin, uint64_t end, const std::function<Bytes(uint64_t)>& input, bool quiet);
