// autograd.h: the tape. An op computes at once and, if a tape is open, records how to go back.
#pragma once
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "engine/tensor.h"

// The nodes of one forward, in the order they ran. One tape a thread is open at a time.
class Tape {
 public:
  // Fills the gradients of everything that the loss depends on: d loss / d loss = 1, then back node by node. Empties the tape.
  void backward(const Tensor& loss);
  // The same from a given gradient of y.
  void backward(const Tensor& y, const Tensor& dy);
  size_t size() const { return nodes_.size(); }

  struct Node {
    const char* op;
    const std::string* layer;                          // the layer that was running, or null
    std::vector<std::shared_ptr<GradSlot>> outputs;
    std::vector<std::shared_ptr<GradSlot>> inputs;     // only for the non-finite watch
    std::function<void(const std::vector<Tensor>&)> backward;   // gets the gradients of the outputs; one that nobody asked for is empty
  };
  std::vector<Node> nodes_;

 private:
  void walk();
};

// Opens a tape on this thread; a null tape stops recording (torch.no_grad).
class TapeScope {
 public:
  explicit TapeScope(Tape* tape);
  ~TapeScope();
  TapeScope(const TapeScope&) = delete;

 private:
  Tape* outer_;
};
Tape* open_tape();

// Marks a tensor that a user made as one whose gradient is wanted; grad_of reads it after backward.
void want_grad(Tensor& x);
Tensor grad_of(const Tensor& x);   // empty if no gradient arrived

// Notes that y (or y and z) was computed from the inputs by `op`, and how its gradient flows back.
void record(const char* op, Tensor& y, std::initializer_list<Tensor> inputs, std::function<void(const Tensor& dy)> backward);
void record(const char* op, Tensor& y, Tensor& z, std::initializer_list<Tensor> inputs,
            std::function<void(const Tensor& dy, const Tensor& dz)> backward);

// Where the gradient of x goes: the buffer, and beta = 0 the first time (write), 1 afterwards (add).
struct Into {
  Tensor grad;
  double beta;
};
Into into(const Tensor& x);
// x's gradient += dy, converted if they are stored differently.
void add_to_gradient(const Tensor& dy, const Tensor& x);
// The gradient of x is dy as it stands. The last use of dy in a backward: where x has no gradient yet, its buffer simply becomes dy.
void pass_on(const Tensor& dy, const Tensor& x);

// y = f(x) without keeping what is inside: backward runs f again. The recomputed numbers are equal bit for bit.
Tensor checkpoint(const std::function<Tensor(const Tensor&)>& f, const Tensor& x);
bool recomputing();   // true inside such a second run

// While it lives, ops on this thread belong to the named layer: for error messages, the watch and the profile.
class LayerRange {
 public:
  explicit LayerRange(const std::string& name);
  ~LayerRange();
  LayerRange(const LayerRange&) = delete;

 private:
  const std::string* outer_;
};
const std::string* running_layer();

// While it lives, every output and every gradient on this thread is looked at; the first that is not finite is named.
struct NonFinite {
  std::string op, layer, where;   // where: "output" or "gradient"
};
class NonFiniteWatch {
 public:
  NonFiniteWatch();
  ~NonFiniteWatch();
  NonFiniteWatch(const NonFiniteWatch&) = delete;
  const NonFinite* found() const { return found_ ? &*first_ : nullptr; }
  void look(const Tensor& x, const char* op, const std::string* layer, const char* where);

 private:
  std::unique_ptr<NonFinite> first_;
  bool found_ = false;
};
bool all_finite(const Tensor& x);
