// center_norm: y = w D/(D-1) (x - mean(x)) + b over the channels (LipsFormer, CenterNorm). No variance and no epsilon.
#include "engine/ops.h"
#include "engine/ops/norm_rows.h"
#include "engine/profile.h"

Tensor center_norm(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  const OpRange range("center_norm");
  return row_norm("center_norm", x, weight, bias, center_steps, 0);
}
