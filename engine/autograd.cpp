// autograd.cpp: recording, walking back, recomputing, and the watch that names the first non-finite number.
#include "engine/autograd.h"

#include <cmath>
#include <utility>

#include "engine/between_nodes.h"
#include "engine/profile.h"

namespace {

thread_local Tape* current_tape = nullptr;
thread_local const std::string* current_layer = nullptr;
thread_local NonFiniteWatch* current_watch = nullptr;
thread_local bool is_recomputing = false;
thread_local const std::function<void()>* between_nodes = nullptr;
thread_local std::vector<std::shared_ptr<GradSlot>>* slots_inside = nullptr;   // of a checkpoint whose forward runs

struct NoteSlots {
  explicit NoteSlots(std::vector<std::shared_ptr<GradSlot>>* slots) : outer(std::exchange(slots_inside, slots)) {}
  ~NoteSlots() { slots_inside = outer; }
  std::vector<std::shared_ptr<GradSlot>>* const outer;
};

std::shared_ptr<GradSlot> new_slot(const Tensor& x) {
  auto slot = std::make_shared<GradSlot>();
  slot->dtype = x.dtype();
  slot->device = x.device();
  return slot;
}

void record_node(const char* op, std::initializer_list<Tensor*> outputs, std::initializer_list<Tensor> inputs,
                 std::function<void(const std::vector<Tensor>&)> backward) {
  if (current_watch)
    for (const Tensor* y : outputs)
      if (*y) current_watch->look(*y, op, current_layer, "output");
  if (slots_inside)
    for (const Tensor& x : inputs)
      if (x.wants_grad()) slots_inside->push_back(x.slot());
  if (!current_tape) return;
  bool wanted = false;
  for (const Tensor& x : inputs) wanted |= x.wants_grad();
  if (!wanted) return;
  Tape::Node node{op, current_layer, {}, {}, std::move(backward)};
  for (Tensor* y : outputs) {
    if (*y) y->set_slot(new_slot(*y));
    node.outputs.push_back(y->slot());
  }
  if (current_watch)
    for (const Tensor& x : inputs)
      if (x.wants_grad()) node.inputs.push_back(x.slot());
  current_tape->nodes_.push_back(std::move(node));
}

}  // namespace

TapeScope::TapeScope(Tape* tape) : outer_(current_tape) { current_tape = tape; }
TapeScope::~TapeScope() { current_tape = outer_; }
Tape* open_tape() { return current_tape; }

void want_grad(Tensor& x) { x.set_slot(new_slot(x)); }

Tensor grad_of(const Tensor& x) {
  if (!x.wants_grad() || !x.slot()->filled || !x.slot()->grad) return {};   // an op's output hands its gradient on
  return x.slot()->grad.view(x.shape());
}

void record(const char* op, Tensor& y, std::initializer_list<Tensor> inputs, std::function<void(const Tensor&)> backward) {
  record_node(op, {&y}, inputs, [shape = y.shape(), f = std::move(backward)](const std::vector<Tensor>& dy) { f(dy[0].view(shape)); });
}

void record(const char* op, Tensor& y, Tensor& z, std::initializer_list<Tensor> inputs,
            std::function<void(const Tensor&, const Tensor&)> backward) {
  record_node(op, {&y, &z}, inputs, [a = y.shape(), b = z.shape(), f = std::move(backward)](const std::vector<Tensor>& dy) {
    f(dy[0] ? dy[0].view(a) : Tensor(), dy[1] ? dy[1].view(b) : Tensor());
  });
}

Into into(const Tensor& x) {
  GradSlot& slot = *x.slot();
  if (!slot.grad) slot.grad = Tensor::empty({x.size()}, slot.dtype, slot.device);
  const bool first = !slot.filled;
  slot.filled = true;
  return {slot.grad.view(x.shape()), first ? 0.0 : 1.0};
}

void pass_on(const Tensor& dy, const Tensor& x) {
  if (!x.wants_grad()) return;
  GradSlot& slot = *x.slot();
  if (!slot.filled && !slot.grad && slot.dtype == dy.dtype()) {
    slot.grad = dy.view({dy.size()}).detached();
    slot.filled = true;
    return;
  }
  add_to_gradient(dy, x);
}

void Tape::backward(const Tensor& loss) { backward(loss, Tensor::full(loss.shape(), 1, loss.dtype(), loss.device())); }

void Tape::backward(const Tensor& y, const Tensor& dy) {
  check(y.wants_grad(), "[backward] nothing that wants a gradient led to this tensor");
  check(dy.size() == y.size() && dy.dtype() == y.dtype(), "[backward] gradient is ", dy.shape(), ", tensor is ", y.shape());
  auto [grad, beta] = into(y);
  if (beta != 0) check(false, "[backward] the gradient of this tensor was already started");
  grad.copy_from(dy);
  walk();
}

void Tape::walk() {
  const TapeScope silent(nullptr);
  const auto look = [] {
    if (between_nodes) (*between_nodes)();
  };
  for (; !nodes_.empty(); look()) {
    Node node = std::move(nodes_.back());
    nodes_.pop_back();
    std::vector<Tensor> dys(node.outputs.size());
    bool any = false;
    for (size_t i = 0; i < dys.size(); i++) {
      if (!node.outputs[i] || !node.outputs[i]->filled) continue;
      dys[i] = std::move(node.outputs[i]->grad);
      any = true;
    }
    if (!any) continue;
    current_layer = node.layer;
    const OpRange range(node.op, OpRange::backward);
    node.backward(dys);
    if (current_watch)
      for (const auto& slot : node.inputs)
        if (slot->filled && slot->grad) current_watch->look(slot->grad, node.op, node.layer, "gradient");
  }
  current_layer = nullptr;
}

Tensor checkpoint(const std::function<Tensor(const Tensor&)>& f, const Tensor& x) {
  if (!current_tape) return f(x);
  Tensor y;
  const auto inside = std::make_shared<std::vector<std::shared_ptr<GradSlot>>>();
  {
    const TapeScope silent(nullptr);
    const NoteSlots noting(inside.get());
    y = f(x.detached());
  }
  y = y.detached();
  // Parameters inside f take gradients even where x takes none, so the node is recorded through a slot of its own.
  Tensor anchor = x;
  if (!anchor.wants_grad()) want_grad(anchor);
  record("checkpoint", y, {anchor}, [f, x, inside](const Tensor& dy) {
    Tape inner;
    Tensor again = x.detached();
    if (x.wants_grad()) want_grad(again);
    Tensor y;
    {
      const TapeScope open(&inner);
      is_recomputing = true;
      y = f(again);
      is_recomputing = false;
    }
    const std::string* layer = current_layer;
    inner.backward(y, dy);
    current_layer = layer;
    if (!x.wants_grad()) return;
    const Tensor dx = grad_of(again);
    if (!dx) return;
    pass_on(dx, x);
  });
  return y;
}

BetweenNodes::BetweenNodes(std::function<void()> f) : f_(std::move(f)), outer_(std::exchange(between_nodes, &f_)) {}
BetweenNodes::~BetweenNodes() { between_nodes = outer_; }

bool recomputing() { return is_recomputing; }

LayerRange::LayerRange(const std::string& name) : outer_(current_layer) { current_layer = &name; }
LayerRange::~LayerRange() { current_layer = outer_; }
const std::string* running_layer() { return current_layer; }

NonFiniteWatch::NonFiniteWatch() { current_watch = this; }
NonFiniteWatch::~NonFiniteWatch() { current_watch = nullptr; }

void NonFiniteWatch::look(const Tensor& x, const char* op, const std::string* layer, const char* where) {
  if (found_ || all_finite(x)) return;
  found_ = true;
  first_ = std::make_unique<NonFinite>(NonFinite{op, layer ? *layer : "", where});
}

bool all_finite(const Tensor& on_device) {
  const Tensor x = on_device.device().kind == Device::cpu ? on_device : on_device.to(Device{});
  if (x.dtype() == DType::u8 || x.dtype() == DType::i32) return true;
  bool finite = true;
  dispatch(x.dtype(), [&]<class T>() {
    const T* p = x.data<T>();
    Compute<T> sum = 0;   // 0 * x is NaN for NaN and infinity, 0 otherwise: one pass without branches
    for (int64_t i = 0, n = x.size(); i < n; i++) sum += Compute<T>(p[i]) * 0;
    finite = sum == 0;
  });
  return finite;
}
