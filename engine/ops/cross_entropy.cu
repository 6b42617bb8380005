// cross_entropy: weight * sum over rows of -sum_k t_k log softmax(x)_k with soft targets t; a row of zero targets counts nothing.
#include "engine/ops/cross_entropy.h"

#include "engine/ops.h"
#include "engine/profile.h"

namespace {

template <class T> struct SoftRow {
  const T* targets;
  HD Compute<T> operator()(int64_t j) const { return Compute<T>(targets[j]); }
};

template <class T> struct Soft {
  using C = Compute<T>;
  const T* targets;
  int64_t classes;
  HD SoftRow<T> row(int64_t row) const { return {targets + row * classes}; }
  HD bool counts(int64_t) const { return true; }
  template <class Team> HD C mass(const Team& team, int64_t row) const {
    const SoftRow<T> t = this->row(row);
    return team.template sum<C>(classes, [&](int64_t j) { return t(j); });
  }
  template <class Team> HD C loss(const Team& team, int64_t row, const T* in, C log_partition) const {
    const SoftRow<T> t = this->row(row);
    return team.template sum<C>(classes, [&](int64_t j) { return t(j) * (log_partition - C(in[j])); });
  }
};

}  // namespace

// The loss is a tensor of one element, f32 (f64 for f64 logits).
Tensor cross_entropy(const Tensor& logits, const Tensor& targets, double weight) {
  const OpRange range("cross_entropy");
  check(logits.shape() == targets.shape() && logits.shape().rank() == 2 && logits.dtype() == targets.dtype(),
        "[cross_entropy] logits are ", logits.shape(), ", targets are ", targets.shape(), ": both must be [B, K]");
  const auto soft = [targets]<class T>() { return Soft<T>{targets.data<T>(), targets.dim(1)}; };
  return cross_entropy_rows::loss<Soft>("cross_entropy", logits, targets, weight, soft);
}
