// cross_entropy_labels: weight * sum over rows of -log softmax(x)_label; a row whose label is -1 counts nothing.
#include "engine/ops/cross_entropy.h"

#include "engine/ops.h"
#include "engine/ops/indices.h"
#include "engine/profile.h"

namespace {

template <class T> struct LabelRow {
  int32_t label;
  HD Compute<T> operator[](int64_t j) const { return int32_t(j) == label ? Compute<T>(1) : Compute<T>(0); }
};

template <class T> struct Labels {
  using C = Compute<T>;
  const int32_t* labels;
  int64_t classes;
  template <class Team> HD LabelRow<T> row(const Team&, int64_t row) const { return {labels[row]}; }
  HD bool counts(int64_t row) const { return labels[row] != -1; }
  template <class Team> HD C mass(const Team&, const LabelRow<T>&) const { return 1; }
  template <class Team, class In> HD C loss(const Team&, int64_t row, const In&, const T* x, C log_partition) const {
    const int64_t label = labels[row];
    return label >= 0 && label < classes ? log_partition - C(x[label]) : C(NAN);
  }
};

}  // namespace

// The loss is a tensor of one element, f32 (f64 for f64 logits).
Tensor cross_entropy_labels(const Tensor& logits, const Tensor& labels, double weight) {
  const OpRange range("cross_entropy_labels");
  check(logits.shape().rank() == 2 && labels.size() == logits.dim(0), "[cross_entropy_labels] logits are ", logits.shape(), ", labels are ",
        labels.shape(), ": [R, K] and [R] expected");
  check_indices("cross_entropy_labels", labels, -1, logits.dim(1));
  const auto hard = [labels, classes = logits.dim(1)]<class T>() { return Labels<T>{labels.data<int32_t>(), classes}; };
  return cross_entropy_rows::loss<Labels>("cross_entropy_labels", logits, labels, weight, hard);
}
