// spectral_maps.h: maps of a matrix that act on its singular values, for the constraints. `limit` is the largest singular value allowed.
#pragma once
#include <cstdint>

#include "engine/dtype.h"
#include "engine/soft_cap.h"

// Spectral soft cap (Newhouse et al. 2025): W <- W - a W W^T W, then W <- W + a W W^T W, so x -> p(x) = (x - a x^3) + a (x - a x^3)^3
// with the strength a of engine/soft_cap.h. For W / scale the strength is a / scale^2.
template <class T> void soft_cap(T* w, int64_t rows, int64_t columns, double strength);

// Every singular value becomes `limit` (but 0 stays).
template <class T> void stiefel(T* w, int64_t rows, int64_t columns, double limit);

// Every singular value s becomes (1 - part) s + part min(s, limit): part 1 is the hard cap, less than 1 spectrally clipped weight decay.
template <class T> void hard_cap(T* w, int64_t rows, int64_t columns, double limit, double part);

// One power iteration from the vector x on the smaller side, which it moves; afterwards `left` and `right` are the singular vectors of the
// value that is returned, as far as they are known. 0 for a matrix that is zero.
template <class T> double power_iteration(const T* w, int64_t rows, int64_t columns, T* x, double* left, double* right);

// As much smaller than the limit as storing the quotient can make it larger: each number is rounded by half an epsilon, which moves the
// spectral norm by at most that part of the Frobenius norm.
double storable(double limit, int64_t smaller, DType dtype);

// W += change left right^T.
template <class T> void add_rank_one(T* w, int64_t rows, int64_t columns, double change, const double* left, const double* right);
