// rms_norm: y = w x / sqrt(mean(x^2) + eps) + b over the channels (torch.nn.RMSNorm, with a bias if one is given).
#include "engine/ops.h"
#include "engine/ops/norm_rows.h"
#include "engine/profile.h"

Tensor rms_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps) {
  const OpRange range("rms_norm");
  return row_norm("rms_norm", x, weight, bias, rms_steps, eps);
}
