// norm_proof.h: when a factorisation proves that |A|_2 <= limit, and the search for a small limit that it proves: one text for the host
// (layers/lipschitz/gram_norm.h) and for kernels (proved_norms.h).
#pragma once
#include <cmath>

#include "engine/rounding.h"

namespace norm_proof {

// The smaller Gram matrix of A / scale as it was computed in f64; scale, a power of two, is such that the largest number of A / scale is about 1.
struct Gram {
  int64_t size = 0;
  double scale = 1;
  double trace = 0;   // of the true one, from above: |A / scale|_F^2
  double error = 0;   // the norm of what the true one differs by, at most
};

// relative: of the sums of absolute products, what a computed sum is off by at most. A computed A A^T then differs from the exact one by a matrix of norm
// <= relative | |A| |A|^T |_2 <= relative |A|_F^2. trace: the sum of the computed diagonal.
HD Gram counted(int64_t size, double scale, double trace, double relative) {
  const double above = trace * (1 + 2 * (relative + rounding::gamma(size)));
  return {size, scale, above, relative * above};
}

HD bool proved_by_trace(const Gram& g, double square) { return g.trace * (1 + 4 * rounding::u) <= square; }

// If the factorisation of M [n, n] runs to its end, the exact M has no eigenvalue below -gamma(n + 1) / (1 - gamma(n + 1)) trace(M)
// (Higham, theorem 10.3 and |R_j|^2 <= m_jj / (1 - gamma); Rump 2006), in any order of sums. Here M = (square - margin) I - G with G off by at most `error`
// and the subtraction by u square; the margin is the sum of all these, the first two taken twice, and of squares that underflow. So success means
// square I - A A^T / scale^2 >= 0.
HD double margin(const Gram& g, double square) {
  return 2 * (rounding::gamma(g.size + 1) * double(g.size) * square + 4 * rounding::u * square) + g.error * (1 + 1e-6) + 1e-300;
}

HD double clamped(double x, double low, double high) { return x < low ? low : x > high ? high : x; }

// A limit with within(limit), above |A|_2 by at most four times the tolerance of what can be proved: `first` above the estimate if that is proved, else
// tolerance above it, 4 tolerance, ... and halves of what is left. The estimate may be anything; better() is asked for another one, from below, where it
// turns out to be poor.
template <class Within, class Better>
HD double small_limit(const Gram& g, double estimate, double first, double tolerance, const Within& within, const Better& better) {
  const double largest = g.scale * sqrt(g.trace) * (1 + 8 * rounding::u) + 0x1p-1074, lost = 4 * g.error / g.trace;   // the Frobenius norm
  const double least = largest / sqrt(double(g.size)) * (1 - 1e-9) * sqrt(1 - (lost < 0.5 ? lost : 0.5));
  double low = clamped(estimate - estimate == 0 ? estimate : 0, least, largest), high = largest;
  bool asked = false;
  for (double above = first; above < 1 && low * (1 + above) < largest; above = above < tolerance ? tolerance : 4 * above) {
    if (!asked && above > 16 * tolerance) {
      asked = true;
      const double found = better();
      if (found > low) low = clamped(found, low, largest), above = tolerance;
    }
    if (!within(low * (1 + above))) continue;
    high = low * (1 + above);
    if (above > tolerance) low *= 1 + above / 4;   // which failed
    break;
  }
  while (high > low * (1 + 3.001 * tolerance)) {
    const double middle = 0.5 * (low + high);
    (within(middle) ? high : low) = middle;
  }
  return high;
}

}  // namespace norm_proof
