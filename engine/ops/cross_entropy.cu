// cross_entropy: weight * sum over rows of -sum_k t_k log softmax(x)_k with soft targets t; a row of zero targets counts nothing.
#include "engine/ops/cross_entropy.h"

#include "engine/ops.h"
#include "engine/profile.h"

namespace {

template <class T> struct Soft {
  using C = Compute<T>;
  const T* targets;
  int64_t classes;
  template <class Team> HD auto row(const Team& team, int64_t row) const { return team.read(targets + row * classes, classes); }
  HD bool counts(int64_t) const { return true; }
  template <class Team, class Row> HD C mass(const Team& team, const Row& t) const {
    return team.template sum<C>(classes, [&](auto j) { return t[j]; });
  }
  template <class Team, class In> HD C loss(const Team& team, int64_t row, const In& in, const T*, C log_partition) const {
    const auto t = this->row(team, row);
    return team.template sum<C>(classes, [&](auto j) { return t[j] * (log_partition - in[j]); });
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
