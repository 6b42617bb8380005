// muon_step.h: Muon's step of one matrix (Jordan et al. 2024) on any device, without the host: its momentum, that made orthogonal by products, and
// the move along it.
#pragma once
#include <array>
#include <vector>

#include "engine/tensor.h"

// weights, gradient, momentum: [rows, columns], f32 or f64. With mu = numbers[step_momentum], lr = numbers[step_matrix_lr] (engine/flat.h):
//   m = mu m + (1 - mu) g,  u = g + mu (m - g) by Nesterov, else m,  w = (1 - lr decay) w - lr scale msign(u)
// msign by the steps x -> a x + b x^3 + c x^5 on u / |u|_F, in bf16 for f32 weights (f64 for f64). Nothing moves if the gradient's norm is not finite.
struct MuonStep {
  Tensor weights, gradient, momentum;
  bool nesterov;
  double scale, decay;
};
void muon_step(const MuonStep& step, const std::vector<std::array<double, 3>>& quintics, const Tensor& numbers);
