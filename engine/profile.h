// profile.h: where the time of a step goes, by op and direction, with what each op computes and moves through device memory.
#pragma once
#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>

#include "engine/autograd.h"

// What one H100 is expected to reach of its data sheet's 989 TFLOP/s and 3.35 TB/s: large dense bf16 products, f32 outside of the tensor cores at half of
// 67 TFLOP/s, and a copy.
namespace roofline {
constexpr double tensor_flops = 800e12, vector_flops = 33.5e12, bytes_per_second = 3.0e12;
}

struct OpCost {
  double seconds = 0;                  // measured
  int64_t calls = 0, macs = 0;
  int64_t kernels = 0, bytes = 0;      // of the form for a device
  double roofline_seconds = 0;         // sum over kernels of the larger of computing and moving
  void add(const OpCost& other);
};

// What ran on this thread while a Profile was open, by "op" or "op backward". Times of nested ranges count for the inner one only.
class Profile {
 public:
  Profile();
  ~Profile();
  Profile(const Profile&) = delete;
  std::map<std::string, OpCost> table;
  std::map<std::string, std::map<std::string, OpCost>> layers;   // counts only, by the layer that was running and by op
  int64_t macs() const;

 private:
  Profile* outer_;
};
Profile* open_profile();

// Names the op that runs now. One line at the top of an op; the tape does it for backwards.
class OpRange {
 public:
  enum Direction { forward, backward };
  explicit OpRange(const char* op, Direction direction = forward);
  ~OpRange();
  OpRange(const OpRange&) = delete;
  std::string name() const { return direction_ == backward ? std::string(op_) + " backward" : op_; }

 private:
  void charge();
  const char* op_;
  Direction direction_;
  Profile* profile_;
  OpRange* outer_ = nullptr;
  std::chrono::steady_clock::time_point since_;
};

// A tensor that a kernel goes through once; an empty one is nothing. Where a gradient goes is read too if it is added to.
struct Moved {
  int64_t bytes = 0, read_back = 0;
  std::optional<Device> device;
  Moved(int64_t bytes, bool added_to = false) : bytes(bytes), read_back(added_to ? bytes : 0) {}
  Moved(const Tensor& t) : Moved(t ? int64_t(t.bytes()) : 0) {
    if (t) device = t.device();
  }
  Moved(const Into& to) : Moved(to.grad ? int64_t(to.grad.bytes()) : 0, to.beta != 0) {
    if (to.grad) device = to.grad.device();
  }
};

enum class Units { tensor, vector };   // the cores that multiply

// Counts a kernel of the op that runs now as CUDA has it: each operand is read once and each result written once in the type in which it is
// stored, whatever the caches make of halos and of rows that are read twice. On the CPU the same work may be cut into blocks that stay in the
// cache; the count is of the form for a device all the same. macs: multiply-adds, one each for a multiply and its add. Fails unless all of them
// lie on one device: what fibers would not notice.
void count_kernel(std::initializer_list<Moved> read, std::initializer_list<Moved> written, int64_t macs = 0, Units units = Units::tensor);

// While it lives, kernels and products on this thread do nothing: shapes flow and are counted as on a device, numbers stay as they are. So a
// step of any batch is counted on any machine.
class DryRun {
 public:
  DryRun();
  ~DryRun();
  DryRun(const DryRun&) = delete;

 private:
  bool outer_;
};
bool dry_run();
