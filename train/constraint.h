// constraint.h: what holds the spectral norms of the weights after every step, and what of it is a promise.
#pragma once
#include <functional>
#include <optional>
#include <string>

#include "engine/workers.h"
#include "train/weight_matrix.h"

struct ConstraintOptions {
  // none, weight_decay, spectral_weight_decay, spectral_normalize, stiefel, spectral_hammer, spectral_soft_cap, spectral_hard_cap,
  // clipped_weight_decay
  std::string method = "none";
  double sigma_max = 1;         // the largest operator norm from RMS to RMS vector norms: |W|_2 <= sigma_max sqrt(out / in)
  double strength = 0;          // of the three decays; 0: weight_decay takes 1 / sigma_max
  int power_iterations = 2;     // a step, of the methods that look at the largest singular value
};

// Every matrix (a group of rows is one of its own) is mapped after each step, on W / sqrt(out / in). Each token's row of an embedding is
// kept at a root mean square of 1 at most. Biases, tables and depthwise kernels are left alone.
//
// promises: spectral_normalize, stiefel, spectral_soft_cap and spectral_hard_cap say that no matrix is ever above sigma_max. That is
// enforced with every optimizer: after the map each matrix is proved to be within sigma_max (Cholesky in f64, every rounding counted), or
// it is divided by a proved upper bound. The decays and the hammer promise nothing, and nothing is enforced.
class Constraint {
 public:
  Constraint(ParameterStore& store, const ConstraintOptions& options);

  using UpdateNorm = std::function<std::optional<double>(const WeightMatrix&)>;
  // After a step of rate lr that took away `decay` of each matrix. update_norm: the largest norm of its change otherwise, in normalised
  // units. Only the soft cap asks. Where nothing is known (all but Muon), it measures a bound of what the step has come to instead.
  void apply(Workers& workers, double lr, double decay, const UpdateNorm& update_norm);
  // Makes the promise true, by dividing what is above. Nothing without a promise.
  void enforce(Workers& workers);
  bool promises() const;

  Tensor vectors;   // power iteration's, of each matrix on its smaller side; none where no method needs it

 private:
  enum class Method { weight_decay, spectral_weight_decay, normalize, stiefel, hammer, soft_cap, hard_cap, clipped_weight_decay };
  template <class T> void map(const WeightMatrix& matrix, int64_t index, double lr, double decay, const UpdateNorm& update_norm);
  template <class T> void enforce(const WeightMatrix& matrix, int64_t index);
  // The largest singular value from below, with its vectors.
  template <class T> double estimate(const WeightMatrix& matrix, int64_t index, std::vector<double>& left, std::vector<double>& right);
  template <class T> void cap_rows(const ParameterInfo& embedding);
  double limit(const WeightMatrix& matrix) const { return options_.sigma_max * matrix.scale(); }

  ParameterStore& store_;
  const ConstraintOptions options_;
  Method method_;
  std::vector<WeightMatrix> matrices_;
  std::vector<int64_t> vector_at_;    // [matrix]: its place in vectors
  std::vector<int> embeddings_;
};
