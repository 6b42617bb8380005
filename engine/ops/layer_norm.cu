// layer_norm: y = w (x - mean) / sqrt(var + eps) + b over the channels (torch.nn.LayerNorm).
#include "engine/ops.h"
#include "engine/ops/norm_rows.h"
#include "engine/profile.h"

Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps) {
  const OpRange range("layer_norm");
  return row_norm("layer_norm", x, weight, bias, layer_steps, eps);
}
