// op_case.h: what every op is held to. A case names inputs and the op; check_op does the rest.
//
//   check_op({.name = "gelu [7, 33]",
//             .inputs = {{.shape = {7, 33}, .values = normal(2)}},
//             .op = [](const Inputs& in) { return gelu(in[0]); }});
//
// On the CPU: f64 gradients against finite differences, gradients that add to what is there, gradients of one input alone, f32 and
// bf16 against f64, 1 thread against 2 bit for bit, inputs left alone. Kernels (Device::cuda, on fibers where there is no GPU) against
// the CPU in three schedules. All of it in poisoned memory with guard bytes. A composed twin, if given, must agree in f64.
#pragma once
#include <doctest/doctest.h>   // before check.h, whose macro would rewrite it

#include <functional>
#include <string>
#include <vector>

#include "engine/ops.h"

// Makes the numbers of an input from its shape.
using Values = std::function<std::vector<double>(const Shape&, RandomSequence&)>;
Values normal(double deviation = 1, double mean = 0);
Values uniform(double low, double high);
Values constant(double value);
Values distribution();                                          // rows that are positive and sum to 1
Values away_from(double kink, double distance, Values values);  // nothing closer to the kink than the distance

enum class Role {
  activation,    // stored in the dtype of the run, as is its gradient
  weight,        // in a bf16 run its gradient is f32
  wide_weight,   // in a bf16 run it is f32, as is its gradient: weights of norms
  fixed,         // takes no gradient
};

struct Input {
  Shape shape;
  Values values = normal();
  Role role = Role::activation;
};
using Inputs = std::vector<Tensor>;

// One output or two; the second may be empty, and either may be one that takes no gradient.
struct Outputs {
  std::vector<Tensor> all;
  Outputs(const Tensor& y) : all{y} {}
  Outputs(const Tensor& y, const Tensor& z) : all{y, z} {}
  Outputs(const Sum& s) : all{s.sum, s.normalised} {}
  Outputs(const Attended& a) : all{a.out, a.entropy} {}
};
using OpFunction = std::function<Outputs(const Inputs&)>;

// Normalised mean squared error, and largest error as a part of the largest value.
struct Tolerance {
  double nmse, max;
};

struct OpCase {
  std::string name;
  std::vector<Input> inputs;
  OpFunction op;
  OpFunction twin = nullptr;        // the same function built of smaller ops or by hand
  bool bf16 = true;                 // false for ops that bf16 never reaches: losses
  double gradient = 1e-6;           // relative to the largest gradient of the input
  double composed = 1e-12;          // f64 against the twin
  Tolerance f64 = {1e-24, 1e-11};   // device against device
  Tolerance f32 = {1e-12, 1e-5};    // against f64, and device against device
  Tolerance b16 = {2e-5, 2e-2};
  int samples = 64;                 // elements an input whose gradient is checked by differences
  bool kernels = true;              // false for sizes at which only the CPU goes another way
  bool threads = true;              // false where the number of threads may show in the last digits
  bool first_alone = true;          // false if a gradient of the first output alone is refused
};
void check_op(const OpCase& c);

// For tests of their own making: fails with NMSE, largest error and first bad index where `given` is not `wanted`.
void check_close(const std::string& what, const std::vector<double>& wanted, const std::vector<double>& given,
                 Tolerance tolerance, const Shape& shape = {});

// While it lives, OpenMP uses so many threads.
class Threads {
 public:
  explicit Threads(int count);
  ~Threads();
  Threads(const Threads&) = delete;

 private:
  int before_;
};

// While it lives, memory is poisoned and guarded; at its end no guard may have been broken.
class GuardedMemory {
 public:
  GuardedMemory();
  ~GuardedMemory();
  GuardedMemory(const GuardedMemory&) = delete;

 private:
  MemoryDebug before_;
  size_t violations_;
};
