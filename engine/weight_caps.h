// weight_caps.h: what the constraints do to weights after a step, on any device and without the host. `numbers` are those of engine/flat.h: nothing moves
// if the gradient's norm is not finite. Numbers of matrices are f64 [matrices].
#pragma once
#include "engine/matrix_batch.h"
#include "engine/muon_step.h"

// The largest singular value of each matrix from below, by power iteration from the smaller side.
class TopSingular {
 public:
  // vector_at: where the vector [smaller side] of each begins in the flat vectors.
  TopSingular(const std::vector<MatrixBatch::Matrix>& matrices, const std::vector<int64_t>& vector_at, Device device);
  // `times` iterations from the vectors, which they move but where skip (may be empty) is not 0.
  void iterate(const Tensor& weights, const Tensor& vectors, int times, const Tensor& skip) const;
  const Tensor& sigma() const { return sigma_; }
  void add(const Tensor& weights, const Tensor& factors) const;   // A_i += factors[i] u_i v_i^T, the singular vectors

 private:
  struct Part {
    MatrixBatch batch;
    bool wide;
    Tensor table, factors;   // of each: where its vector begins and which matrix it is
  };
  std::vector<Part> parts_;
  Tensor sigma_;
};

// factors[i] of W_i: 1 - lr strength (weight decay), lr = numbers[step_matrix_lr].
void decay_factors(double strength, const Tensor& numbers, const Tensor& factors);
// What is added along the top singular vectors: limits[i] - sigma[i] (the hammer; a matrix of zeros has none), or -strength sigma[i].
void hammer_factors(const Tensor& sigma, const Tensor& limits, const Tensor& numbers, const Tensor& factors);
void spectral_decay_factors(const Tensor& sigma, double strength, const Tensor& numbers, const Tensor& factors);
// What brings W_i to where it may be stored: 1 where it is within, else targets[i] / bounds[i]; 1 for a bound that is not finite.
void enforcing_factors(const Tensor& within, const Tensor& bounds, const Tensor& targets, const Tensor& numbers, const Tensor& factors);
// -a_i and a_i, the strengths of the soft cap of W_i in its type, where |W_i|_2 <= k scales[i]: k = bounds[i] / scales[i], or, without bounds, what a step
// of norm lr updates[i] leaves of sigma_max: k = sigma_max (1 - lr decay) + lr updates[i].
struct SoftCapStep {
  Tensor scales, bounds, updates;
  double sigma_max, decay;
};
void soft_cap_strengths(const SoftCapStep& step, const Tensor& numbers, const Tensor& strengths);

// Maps of a matrix [rows, columns] as train/spectral_maps.h has them; `polar`: the steps that take every singular value to 1.
void soft_cap_map(const Tensor& w, const Tensor& strengths);   // [2]: -a and a
// Every singular value becomes `limit`.
void stiefel_map(const Tensor& w, double limit, const Quintics& polar, const Tensor& numbers);
// skip [1]: not where it is 1; may be empty.
void hard_cap_map(const Tensor& w, double limit, double part, const Quintics& polar, const Tensor& skip, const Tensor& numbers);

// Each row of a table [rows, width] comes to a root mean square of 1 at most.
void cap_rows(const Tensor& table);
// average = decay average + (1 - decay) weights.
void average_weights(const Tensor& weights, const Tensor& average, double decay, const Tensor& numbers);
