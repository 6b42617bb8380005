// tensor.h: a cheap handle on contiguous numbers: shape, dtype, device, shared storage, and the slot where its gradient goes.
#pragma once
#include <memory>
#include <span>
#include <vector>

#include "engine/device.h"
#include "engine/dtype.h"
#include "engine/memory.h"
#include "engine/shape.h"

struct GradSlot;

class Tensor {
 public:
  Tensor() = default;
  static Tensor empty(const Shape& shape, DType dtype, Device device = {});
  static Tensor zeros(const Shape& shape, DType dtype, Device device = {});
  static Tensor full(const Shape& shape, double value, DType dtype, Device device = {});
  static Tensor like(const Tensor& x) { return empty(x.shape(), x.dtype(), x.device()); }
  template <class T> static Tensor from(const Shape& shape, std::span<const T> values, DType dtype, Device device = {});
  template <class T> static Tensor from(const Shape& shape, const std::vector<T>& values, DType dtype, Device device = {}) {
    return from(shape, std::span<const T>(values), dtype, device);
  }

  explicit operator bool() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  int64_t dim(int i) const { return shape_[i]; }
  int64_t size() const { return shape_.size(); }
  int64_t rows() const { return shape_.rows(); }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }
  size_t bytes() const { return size_t(size()) * size_of(dtype_); }

  template <class T> T* data() const {
    check(dtype_of<T> == dtype_, "[tensor] the data are ", dtype_, ", asked for as ", dtype_of<T>);
    return reinterpret_cast<T*>(raw());
  }
  char* raw() const { return storage_->data() + offset_; }

  // The same numbers in another shape. Free, and the gradient goes to the same slot.
  Tensor view(const Shape& shape) const;
  // `count` entries of the leading dimension from `begin` on. Free; takes no gradient.
  Tensor slice(int64_t begin, int64_t count) const;
  // The same numbers without a gradient.
  Tensor detached() const;
  Tensor to(DType dtype) const;   // a converted copy without gradient
  Tensor to(Device device) const;
  void copy_from(const Tensor& other) const;   // the numbers of a tensor of the same size and type, wherever it is
  std::vector<double> values() const;
  double item() const;            // the value of a tensor of one element

  bool wants_grad() const { return slot_ != nullptr; }
  const std::shared_ptr<GradSlot>& slot() const { return slot_; }
  void set_slot(std::shared_ptr<GradSlot> slot) { slot_ = std::move(slot); }

 private:
  Shape shape_;
  DType dtype_ = DType::f32;
  Device device_;
  std::shared_ptr<Storage> storage_;
  size_t offset_ = 0;
  std::shared_ptr<GradSlot> slot_;
};

// Where the gradient of a tensor is gathered. It knows nothing of the tensor's numbers, so a tape never keeps activations alive.
struct GradSlot {
  Tensor grad;            // made on first use; for a parameter it is a slice of the flat gradient
  bool filled = false;    // whether the first contribution has been written
  DType dtype;            // of the gradient: f32 for a parameter, else the tensor's own
  Device device;
};
