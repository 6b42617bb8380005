// weights.cpp: conversion and name checks.
#include "train/weights.h"

#include <cmath>
#include <cstring>

namespace {

float half_to_float(uint16_t h) {
  const int exponent = (h >> 10) & 31, fraction = h & 1023;
  const float sign = h & 0x8000 ? -1.0f : 1.0f;
  if (exponent == 31) return fraction ? NAN : sign * INFINITY;
  return sign * std::ldexp(exponent ? float(1024 + fraction) : float(fraction), (exponent ? exponent : 1) - 25);
}

template <class S> void read_as(const SafetensorsEntry& entry, std::vector<double>& out, double (*convert)(S)) {
  for (size_t i = 0; i < out.size(); i++) {
    S value;
    std::memcpy(&value, entry.data + i * sizeof(S), sizeof(S));
    out[i] = convert(value);
  }
}

std::string stripped(std::string name) {
  for (const std::string prefix : {"module.", "_orig_mod."})
    if (name.starts_with(prefix)) name = name.substr(prefix.size());
  return name;
}

bool is_buffer(const std::string& name) { return name.ends_with("relative_position_index") || name.ends_with("attn_mask"); }

}  // namespace

Tensor to_tensor(const SafetensorsEntry& entry, DType dtype, const std::string& what) {
  const Shape shape(entry.shape);
  std::vector<double> values(shape.size());
  if (entry.dtype == "F32") read_as<float>(entry, values, [](float v) { return double(v); });
  else if (entry.dtype == "F64") read_as<double>(entry, values, [](double v) { return v; });
  else if (entry.dtype == "I64") read_as<int64_t>(entry, values, [](int64_t v) { return double(v); });
  else if (entry.dtype == "BF16") read_as<uint16_t>(entry, values, [](uint16_t v) { return double(std::bit_cast<float>(uint32_t(v) << 16)); });
  else if (entry.dtype == "F16") read_as<uint16_t>(entry, values, [](uint16_t v) { return double(half_to_float(v)); });
  else fail(Exit::bad_data, what, " has dtype ", entry.dtype, "; F16, BF16, F32, F64 or I64 can be read");
  return Tensor::from(shape, values, dtype);
}

SafetensorsEntry to_entry(const Tensor& tensor) {
  const char* dtype = tensor.dtype() == DType::f64 ? "F64" : tensor.dtype() == DType::bf16 ? "BF16" : "F32";
  return {dtype, tensor.shape().dims(), reinterpret_cast<const uint8_t*>(tensor.raw()), tensor.bytes()};
}

std::set<std::string> load_weights(ParameterStore& store, const SafetensorsFile& file, bool partial, const std::string& prefix) {
  std::set<std::string> found;
  for (const auto& [full_name, entry] : file.tensors()) {
    if (!full_name.starts_with(prefix)) continue;
    const std::string name = stripped(full_name.substr(prefix.size()));
    if (is_buffer(name)) continue;
    const int index = store.find(name), buffer = index < 0 ? store.find_buffer(name) : -1;
    if (index < 0 && buffer < 0) {
      if (partial) continue;
      fail(Exit::bad_data, file.path(), " belongs to another model: it has a tensor ", name, ", which this model does not");
    }
    const Tensor to = index >= 0 ? store.raw(index) : store.raw_buffer(buffer);
    const bool counter = to.size() == 1 && entry.shape.empty();   // PyTorch's counters have no dimension
    if (Shape(entry.shape) != to.shape() && !counter)
      fail(Exit::bad_data, file.path(), " belongs to another model: its ", name, " is ", Shape(entry.shape), ", this model's is ", to.shape());
    const Tensor from = to_tensor(entry, store.dtype(), file.path() + ": " + name);
    to.copy_from(from);
    found.insert(name);
  }
  store.host_changed();
  store.host_changed_buffers();
  const auto need = [&](const std::string& name) {
    if (!partial && !found.contains(name)) fail(Exit::bad_data, file.path(), " belongs to another model: it lacks ", name);
  };
  for (const ParameterInfo& info : store.parameters()) need(info.name);
  for (const BufferInfo& info : store.buffers())
    if (info.persistent) need(info.name);
  return found;
}

std::map<std::string, SafetensorsEntry> weight_entries(const ParameterStore& store, const Tensor& flat, const std::string& prefix) {
  std::map<std::string, SafetensorsEntry> entries;
  for (size_t i = 0; i < store.parameters().size(); i++)
    entries[prefix + store.parameters()[i].name] = to_entry(store.slice_of(flat, int(i)));
  return entries;
}

std::map<std::string, SafetensorsEntry> buffer_entries(const ParameterStore& store) {
  std::map<std::string, SafetensorsEntry> entries;
  for (size_t i = 0; i < store.buffers().size(); i++)
    if (store.buffers()[i].persistent) entries[store.buffers()[i].name] = to_entry(store.raw_buffer(int(i)));
  return entries;
}
