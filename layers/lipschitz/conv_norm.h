// conv_norm.h: upper bounds of the norms of convolutions as the operators they are, zero padding and stride included, that hold with every
// rounding counted. The norm of the kernel reshaped to a matrix is no such bound: 3 for a 3 x 3 kernel of ones, whose norm tends to 9.
#pragma once
#include <cstdint>

// max over c of |A_c|_2, from above, where A_c is the correlation of a height x width map with kernel c of [channels, k, k], k odd, zero
// padding k / 2, stride 1. `estimate` is the norm as power iteration knows it: it may be anything, 0 if nothing is known, but a good one
// from below saves time. Exceeds the norm by about 2 * tolerance, relative, on maps of up to about 40 x 40; beyond, and where that already
// proves enough, the bound is the norm on a torus, which is above by about (k / height)^2. Infinity where a number is not finite.
template <class T>
double depthwise_upper_bound(const T* kernels, int64_t channels, int64_t k, int64_t height, int64_t width, double estimate,
                             double tolerance = 1e-4);

// y[o, i] = sum over c, t of kernel[o, c, t] x[c, stride * i + t - padding], zero outside of the map; (size + 2 * padding - k) / stride + 1
// outputs along a side. groups > 1: kernel is [out, in / groups, k, k], and group g maps its share of the channels to its own.
struct Convolution {
  int64_t out, in, k, stride, padding, height, width, groups = 1;
};

// |A|_2 of that operator, from above. Within 2e-6 where the operator as a matrix has at most 2^20 numbers and at most 512 rows or columns,
// and where k <= stride and padding = 0, as the patches then do not overlap: there it is the norm of the kernel reshaped. Elsewhere the
// norm of the same on a torus, which is above by about (k / height)^2: 1 % or less from 56 x 56 on.
template <class T> double conv_upper_bound(const T* kernel, const Convolution& shape);
