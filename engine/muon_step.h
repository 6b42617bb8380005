// muon_step.h: Muon's step (Jordan et al. 2024) of many matrices at once on any device, without the host: their momentum, that made orthogonal by
// products, and the move along it.
#pragma once
#include <array>
#include <vector>

#include "engine/tensor.h"

using Quintics = std::vector<std::array<double, 3>>;   // x -> a x + b x^3 + c x^5, one after another

// weights, gradient, momentum: [rows, columns], f32 or f64. With mu = numbers[step_momentum], lr = numbers[step_matrix_lr] (engine/flat.h):
//   m = mu m + (1 - mu) g,  u = g + mu (m - g) by Nesterov, else m,  w = (1 - lr decay) w - lr scale msign(u)
// msign by the steps x -> a x + b x^3 + c x^5 on u / |u|_F, in bf16 for f32 weights (f64 for f64). Nothing moves if the gradient's norm is not finite.
struct MuonStep {
  Tensor weights, gradient, momentum;
  double scale;
};
struct MuonRule {
  bool nesterov;
  double decay;
};
void muon_step(const std::vector<MuonStep>& steps, const MuonRule& rule, const Quintics& quintics, const Tensor& numbers);
// The same for rows by themselves, the dual of the root mean square: m as above, w = (1 - lr decay) w - lr scale m_r / RMS(m_r); a row that was never
// seen stays where it is.
void muon_rows(const MuonStep& step, double decay, const Tensor& numbers);
// The same msign of a matrix in its own type: x / |x|_F, then the steps. Zero stays zero.
Tensor orthogonal(const Tensor& x, const Quintics& quintics);
