// measures.h: what a step notes of its activations on the device, for a host that looks later.
#pragma once
#include "engine/tensor.h"

// report (f64) at `heads`: += entropy [H] * batch; at `squares`: the larger of it and the largest |X|_F^2 of a sample of x [B, ..., C], and
// behind it the larger of it and the largest |x|^2 of a token.
void note_attention(const Tensor& entropy, const Tensor& x, const Tensor& report, int64_t heads, int64_t squares);
// report at `slot`: += the only number of y.
void note_sum(const Tensor& y, const Tensor& report, int64_t slot);
