// symmetric_products.h: the products of Newton-Schulz steps, those of many matrices in one launch. Where a result is symmetric, only its tiles on and
// below the diagonal are computed; each is written a second time as its mirror image.
#pragma once
#include <vector>

#include "engine/tensor.h"

// C_i = identity I + linear X_i + square G_i, G_i = X_i X_i^T [rows, rows], or X_i^T X_i [columns, columns] where the columns are fewer. A linear term asks
// for symmetric X_i. Computed in f32 (f64 for f64) and rounded once; on a device C_i is symmetric to the bit. All of one type and on one device.
struct Quadratic {
  double identity = 0, linear = 0, square = 1;
};
void symmetric_products(const std::vector<Tensor>& x, const std::vector<Tensor>& c, const Quadratic& quadratic = {});

// Y_i = S_i X_i with the symmetric S_i [rows, rows], or X_i S_i with S_i [columns, columns] where the columns are fewer.
void products_with_symmetric(const std::vector<Tensor>& s, const std::vector<Tensor>& x, const std::vector<Tensor>& y);
