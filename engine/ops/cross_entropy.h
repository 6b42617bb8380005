// cross_entropy.h: what both cross entropies share: the rows forward and backward. Where the targets t come from is a parameter:
//   counts(row)                          whether the row does at all
//   row(team, row)[k]                    t_k
//   mass(team, row(team, row))           sum over k of t_k
//   loss(team, row, in, x, log_partition)   sum over k of t_k (log_partition - in_k); in is the row x as the team has read it
#pragma once
#include "engine/map.h"
#include "engine/math.h"

namespace cross_entropy_rows {

template <class T, class Targets> struct Forward {   // the loss of a row
  const T* x;
  Targets targets;
  int64_t classes;
  template <class Team> HD Compute<T> operator()(int64_t row, const Team& team) const {
    using C = Compute<T>;
    if (!targets.counts(row)) return 0;
    const auto in = team.read(x + row * classes, classes);
    const C top = team.template max<C>(classes, [&](auto j) { return in[j]; });
    const C partition = team.template sum<C>(classes, [&](auto j) { return fast_exp(in[j] - top); });
    return targets.loss(team, row, in, x + row * classes, top + C(log(partition)));
  }
};

template <class T, class Targets> struct Backward {   // dx = weight dy (softmax(x) sum(t) - t)
  const T* x;
  Targets targets;
  const Compute<T>* dy;
  T* dx;
  bool add;
  Compute<T> weight;
  int64_t classes;
  template <class Team> HD void operator()(int64_t row, const Team& team) const {
    using C = Compute<T>;
    T* out = dx + row * classes;
    if (!targets.counts(row)) {
      if (!add) team.write(out, classes, [&](auto j) { return C(0); });
      return;
    }
    const auto in = team.read(x + row * classes, classes);
    const auto target = targets.row(team, row);
    const C top = team.template max<C>(classes, [&](auto j) { return in[j]; });
    const C partition = team.template sum<C>(classes, [&](auto j) { return fast_exp(in[j] - top); });
    const C factor = weight * *dy, share = targets.mass(team, target) / partition;
    const auto gradient = [&](auto j) { return factor * (fast_exp(in[j] - top) * share - target[j]); };
    // Two loops: a choice inside of one keeps the exponential out of vectors.
    if (add) team.update(out, classes, true, gradient);
    else team.write(out, classes, gradient);
  }
};

template <class C> struct Weighted {
  const C* sum;
  C* loss;
  C weight;
  HD void operator()(int64_t) const { *loss = weight * *sum; }
};

// The op itself. targets_of<T>() makes Targets<T>; it holds what they point to, so that backward can ask again.
template <template <class> class Targets, class Of>
Tensor loss(const char* op, const Tensor& logits, const Tensor& targets, double weight, const Of& targets_of) {
  const int64_t classes = logits.dim(1);
  Tensor loss = Tensor::empty({1}, logits.dtype() == DType::f64 ? DType::f64 : DType::f32, logits.device());
  count_kernel({logits, targets}, {});
  dispatch(logits.dtype(), [&]<class T>() {
    using C = Compute<T>;
    const Forward<T, Targets<T>> f{logits.data<T>(), targets_of.template operator()<T>(), classes};
    const Tensor sum = sum_rows<T>(logits.device(), logits.rows(), classes, f);
    map(logits.device(), 1, Weighted<C>{sum.data<C>(), loss.data<C>(), C(weight)});
  });
  record(op, loss, {logits}, [=](const Tensor& dy) {
    auto target = into(logits);
    count_kernel({logits, targets}, {target});
    dispatch(logits.dtype(), [&]<class T>() {
      using C = Compute<T>;
      map_rows<T>(logits.device(), logits.rows(), classes,
                  Backward<T, Targets<T>>{logits.data<T>(), targets_of.template operator()<T>(), dy.data<C>(), target.grad.data<T>(),
                                          target.beta != 0, C(weight), classes});
    });
  });
  return loss;
}

}  // namespace cross_entropy_rows
