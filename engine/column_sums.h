// column_sums.h: what the gradient of a bias is made of.
#pragma once
#include "engine/tensor.h"

// Sums over all rows: x [..., C] -> [1, C], f32, or f64 for f64. In chunks that depend on the shape only.
Tensor column_sums(const Tensor& x);
