// singular_value.h: the largest singular value of a matrix to full accuracy. For initialisation and tests; a step uses power iteration.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

// max |A x| / |x| for A [rows, columns], row-major. Lanczos on A^T A (or A A^T, the smaller one) with full reorthogonalisation:
// exact where the smaller side is at most 120, else within about 1e-6 relative, from below.
double largest_singular_value(const double* a, int64_t rows, int64_t columns);

// The same on a symmetric positive semidefinite matrix [n, n] of which only its product with a vector is known: its largest eigenvalue,
// exact after n steps, from below before.
double largest_eigenvalue(int64_t n, int most_steps, const std::function<std::vector<double>(const std::vector<double>&)>& times);
