// indices.h: i32 tensors that number something: tokens of a vocabulary, classes.
#pragma once
#include "engine/tensor.h"

// Refuses numbers outside of [low, end). Numbers on a device are not read back: there the op answers a bad one with NaN.
inline void check_indices(const char* op, const Tensor& indices, int64_t low, int64_t end) {
  check(indices.dtype() == DType::i32, "[", op, "] i32 numbers expected, given ", indices.dtype());
  if (indices.device().kind != Device::cpu) return;
  const int32_t* number = indices.data<int32_t>();
  for (int64_t i = 0; i < indices.size(); i++)
    check(number[i] >= low && number[i] < end, "[", op, "] number ", i, " is ", number[i], ", it must be in [", low, ", ", end, ")");
}
