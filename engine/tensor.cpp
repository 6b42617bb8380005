// tensor.cpp: making, viewing and converting tensors.
#include "engine/tensor.h"

#include <algorithm>
#include <cstring>

Tensor Tensor::empty(const Shape& shape, DType dtype, Device device) {
  Tensor t;
  t.shape_ = shape;
  t.dtype_ = dtype;
  t.device_ = device;
  t.storage_ = std::make_shared<Storage>(size_t(shape.size()) * size_of(dtype), device);
  return t;
}

Tensor Tensor::zeros(const Shape& shape, DType dtype, Device device) {
  Tensor t = empty(shape, dtype, device);
  fill_bytes(t.raw(), device, 0, t.bytes());
  return t;
}

template <class S> Tensor Tensor::from(const Shape& shape, std::span<const S> values, DType dtype, Device device) {
  check(int64_t(values.size()) == shape.size(), "[tensor] ", values.size(), " values for shape ", shape);
  if (device.kind == Device::cuda) return from(shape, values, dtype).to(device);
  Tensor t = empty(shape, dtype, device);
  const auto convert = [&]<class T>(T* to) { std::transform(values.begin(), values.end(), to, [](S v) { return T(v); }); };
  if (dtype == DType::i32) convert(t.data<int32_t>());
  else if (dtype == DType::u8) convert(t.data<uint8_t>());
  else dispatch(dtype, [&]<class T>() { convert(t.data<T>()); });
  return t;
}
template Tensor Tensor::from<float>(const Shape&, std::span<const float>, DType, Device);
template Tensor Tensor::from<double>(const Shape&, std::span<const double>, DType, Device);
template Tensor Tensor::from<int32_t>(const Shape&, std::span<const int32_t>, DType, Device);
template Tensor Tensor::from<uint8_t>(const Shape&, std::span<const uint8_t>, DType, Device);

Tensor Tensor::view(const Shape& shape) const {
  check(shape.size() == size(), "[view] ", shape, " does not hold as many numbers as ", shape_);
  Tensor t = *this;
  t.shape_ = shape;
  return t;
}

Tensor Tensor::slice(int64_t begin, int64_t count) const {
  check(shape_.rank() > 0 && begin >= 0 && begin + count <= shape_[0], "[slice] ", begin, "+", count, " of ", shape_);
  std::vector<int64_t> dims = shape_.dims();
  const int64_t stride = dims[0] ? size() / dims[0] : 0;
  dims[0] = count;
  Tensor t = detached();
  t.shape_ = Shape(dims);
  t.offset_ += size_t(begin * stride) * size_of(dtype_);
  return t;
}

Tensor Tensor::detached() const {
  Tensor t = *this;
  t.slot_.reset();
  return t;
}

Tensor Tensor::to(Device device) const {
  Tensor t = empty(shape_, dtype_, device);
  t.copy_from(*this);
  return t;
}

void Tensor::copy_from(const Tensor& other) const {
  check(other.size() == size() && other.dtype() == dtype_, "[copy_from] ", dtype_, ' ', shape_, " cannot take ", other.dtype(), ' ', other.shape());
  copy_bytes(raw(), device_, other.raw(), other.device(), bytes());
}

std::vector<double> Tensor::values() const {
  if (device_.kind == Device::cuda) return to(Device{}).values();
  std::vector<double> out(size());
  if (dtype_ == DType::i32) std::copy_n(data<int32_t>(), size(), out.begin());
  else if (dtype_ == DType::u8) std::copy_n(data<uint8_t>(), size(), out.begin());
  else dispatch(dtype_, [&]<class T>() { for (int64_t i = 0; i < size(); i++) out[i] = Compute<T>(data<T>()[i]); });
  return out;
}

double Tensor::item() const {
  check(size() == 1, "[item] one element expected, shape is ", shape_);
  return values()[0];
}
