// target.h: a fuzz target takes any bytes, and may do nothing but read them or refuse them as damaged.
#pragma once
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine/check.h"

using Bytes = std::vector<uint8_t>;
using Input = std::span<const uint8_t>;

// What a target must never do: give two answers to one question, or blame itself for bad input.
struct Finding : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct FuzzTarget {
  std::string name;
  enum Format { jpeg, png, tar, index, numbers, text } format;   // how mutate.h changes its inputs
  bool image;                  // counted among the images, or among the others
  void (*run)(Input);          // throws a Finding
  std::vector<Bytes> seeds;    // good inputs
};

// Each target with its seeds.
const std::vector<FuzzTarget>& fuzz_targets();
std::vector<FuzzTarget> image_targets();
std::vector<FuzzTarget> file_targets();
const FuzzTarget& fuzz_target(const std::string& name);

// Whether it is refused as bad data. To be refused in another way is a finding.
template <class F> bool refuses(F&& run) {
  try {
    run();
    return false;
  } catch (const Error& error) {
    if (error.exit == Exit::bad_data) return true;
    throw Finding(str("refused with exit code ", int(error.exit), ": ", error.what()));
  }
}
