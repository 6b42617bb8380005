// device_constraint.cpp: the method's map over all matrices, then the proof.
#include "train/device_constraint.h"

#include "train/orthogonalize.h"
#include "train/spectral_maps.h"

namespace {

std::vector<MatrixBatch::Matrix> places_of(const std::vector<WeightMatrix>& matrices) {
  std::vector<MatrixBatch::Matrix> all;
  for (const WeightMatrix& m : matrices) all.push_back({m.offset, m.rows, m.columns});
  return all;
}

// polar_express8 takes [1e-3, 1] to 1 within four digits; its last step twelve more times, until 5e-7 has come there too.
Quintics polar_steps() {
  Quintics steps;
  for (const Quintic& q : coefficients_named("polar_express8").steps) steps.push_back({q.a, q.b, q.c});
  steps.insert(steps.end(), 12, steps.back());
  return steps;
}

}  // namespace

DeviceConstraint::DeviceConstraint(ParameterStore& store, const OptimizerOptions& options, const std::vector<double>& updates)
    : store_(store), options_(options.constraint), weight_decay_(options.weight_decay), promises_(Constraint(store, options.constraint).promises()),
      matrices_(weight_matrices(store)), polar_(polar_steps()) {
  const Device device = store.device();
  const Constraint host(store, options.constraint);
  const int64_t n = int64_t(matrices_.size());
  std::vector<double> limits, targets, scales;
  std::vector<int64_t> vector_at;
  int64_t at = 0;
  for (const WeightMatrix& m : matrices_) {
    const double limit = options_.sigma_max * m.scale();
    limits.push_back(limit);
    targets.push_back(storable(limit, m.smaller(), store.dtype()));
    scales.push_back(m.scale());
    vector_at.push_back(at);
    at += m.smaller();
  }
  for (size_t p = 0; p < store.parameters().size(); p++)
    if (store.parameters()[p].kind == ParameterKind::embedding) embeddings_.push_back(int(p));
  batch_ = std::make_unique<MatrixBatch>(places_of(matrices_), device);
  if (host.vectors) {
    vectors = host.vectors.to(device);
    top_ = std::make_unique<TopSingular>(places_of(matrices_), vector_at, device);
  }
  if (promises_) proved_ = std::make_unique<ProvedNorms>(places_of(matrices_), device);
  const auto numbers = [&](const std::vector<double>& values) { return Tensor::from(Shape{n}, values, DType::f64, device); };
  limits_ = numbers(limits), targets_ = numbers(targets), scales_ = numbers(scales);
  if (!updates.empty()) updates_ = numbers(updates);
  within_ = Tensor::zeros({n}, DType::f64, device);
  bounds_ = Tensor::zeros({n}, DType::f64, device);
  factors_ = Tensor::zeros({n}, DType::f64, device);
  strengths_ = Tensor::zeros({2 * n}, store.dtype(), device);
}

Tensor DeviceConstraint::matrix_of(size_t i) const {
  const WeightMatrix& m = matrices_[i];
  return store_.values_in_use().slice(m.offset, m.size()).view({m.rows, m.columns});
}

void DeviceConstraint::estimate(const Tensor& skip) const { top_->iterate(store_.values_in_use(), vectors, options_.power_iterations, skip); }

void DeviceConstraint::map(const Tensor& numbers) const {
  const Tensor& weights = store_.values_in_use();
  const std::string& method = options_.method;
  if (method == "weight_decay") {
    decay_factors(options_.strength > 0 ? options_.strength : 1 / options_.sigma_max, numbers, factors_);
    batch_->multiply(weights, factors_);
  } else if (method == "spectral_weight_decay" || method == "spectral_hammer") {
    estimate({});
    if (method == "spectral_hammer") hammer_factors(top_->sigma(), limits_, numbers, factors_);
    else spectral_decay_factors(top_->sigma(), options_.strength, numbers, factors_);
    top_->add(weights, factors_);
  } else if (method == "stiefel") {
    for (size_t i = 0; i < matrices_.size(); i++)
      stiefel_map(matrix_of(i), storable(options_.sigma_max * matrices_[i].scale(), matrices_[i].smaller(), store_.dtype()), polar_, numbers);
  } else if (method == "spectral_soft_cap") {
    if (!updates_) {
      estimate({});
      proved_->look(weights);
      proved_->bound(top_->sigma(), {}, bounds_, {});
    }
    soft_cap_strengths({scales_, updates_ ? Tensor() : bounds_, updates_, options_.sigma_max, weight_decay_}, numbers, strengths_);
    for (size_t i = 0; i < matrices_.size(); i++) soft_cap_map(matrix_of(i), strengths_.slice(2 * int64_t(i), 2));
  } else if (method == "spectral_hard_cap" || method == "clipped_weight_decay") {
    const bool caps = method == "spectral_hard_cap";
    if (caps) proved_->test(weights, limits_, within_);   // within the cap it changes nothing
    for (size_t i = 0; i < matrices_.size(); i++) {
      const double limit = options_.sigma_max * matrices_[i].scale();
      hard_cap_map(matrix_of(i), caps ? storable(limit, matrices_[i].smaller(), store_.dtype()) : limit, caps ? 1 : options_.strength, polar_,
                   caps ? within_.slice(int64_t(i), 1) : Tensor(), numbers);
    }
  }
}

void DeviceConstraint::enforce(const Tensor& numbers) const {
  const Tensor& weights = store_.values_in_use();
  proved_->test(weights, limits_, within_);
  estimate(within_);
  proved_->bound(top_->sigma(), within_, bounds_, {});
  enforcing_factors(within_, bounds_, targets_, numbers, factors_);
  batch_->multiply(weights, factors_);
}

void DeviceConstraint::apply(const Tensor& numbers) const {
  map(numbers);
  if (promises_) enforce(numbers);
  for (const int e : embeddings_) cap_rows(store_.slice_of(store_.values_in_use(), e));
}
