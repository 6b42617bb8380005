// init.h: how initial values are drawn. Each parameter has its own random stream, so adding a layer changes no other layer's values.
#pragma once
#include "engine/random.h"
#include "engine/tensor.h"

struct Init {
  enum Kind {
    constant,        // value
    normal,          // N(0, value^2)
    uniform,         // U(-value, value)
    xavier_normal,   // value * N(0, 2 / (fan_in + fan_out))
    spectral,        // N(0, 1) divided by the largest singular value of the tensor as [dim 0, rest]   (LipsFormer, 4.1)
    unit_rows,       // N(0, 1), then each row divided by its root mean square
    sinusoid,        // [.., N, D]: sin, cos of pos / 10000^(2 floor(j/2) / D), taking turns over j   (Vaswani et al. 2017)
    orthogonal,      // value times a semi-orthogonal [dim 0, rest], drawn evenly: every singular value is `value`
  } kind = constant;
  double value = 0;

  static Init zeros() { return {constant, 0}; }
  static Init ones() { return {constant, 1}; }
};

// row_groups: so many independent matrices are stacked by rows; `orthogonal` makes each of them semi-orthogonal.
void initialize(const Tensor& x, const Init& init, const RandomStream& stream, int64_t row_groups = 1);
