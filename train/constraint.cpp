// constraint.cpp: the maps over all matrices, and the proof after them.
#include "train/constraint.h"

#include <limits>

#include "layers/lipschitz/gram_norm.h"
#include "train/spectral_maps.h"

namespace {

// A bound of |W|_2 to divide a weight by: 1e-10 above the estimate where that can be proved, else within about 1e-5 of the norm.
double proved_bound(const GramMatrix& gram, double estimate) { return gram.upper_bound(estimate, 1e-5, 1e-10); }

template <class T> void multiply(T* w, int64_t n, double factor) {
  for (int64_t i = 0; i < n; i++) w[i] = T(double(w[i]) * factor);
}

}  // namespace

Constraint::Constraint(ParameterStore& store, const ConstraintOptions& options)
    : store_(store), options_(options), matrices_(weight_matrices(store)) {
  const std::pair<const char*, Method> methods[] = {
      {"weight_decay", Method::weight_decay},       {"spectral_weight_decay", Method::spectral_weight_decay},
      {"spectral_normalize", Method::normalize},    {"stiefel", Method::stiefel},
      {"spectral_hammer", Method::hammer},          {"spectral_soft_cap", Method::soft_cap},
      {"spectral_hard_cap", Method::hard_cap},      {"clipped_weight_decay", Method::clipped_weight_decay}};
  const auto found = std::find_if(std::begin(methods), std::end(methods), [&](const auto& m) { return options.method == m.first; });
  if (found == std::end(methods))
    fail(Exit::config, "there is no constraint ", options.method, ": choose none, weight_decay, spectral_weight_decay, spectral_normalize, ",
         "stiefel, spectral_hammer, spectral_soft_cap, spectral_hard_cap or clipped_weight_decay");
  method_ = found->second;
  if (!(options.sigma_max > 0)) fail(Exit::config, "constraint.sigma_max must be above 0, it is ", options.sigma_max);
  const bool decays = method_ == Method::spectral_weight_decay || method_ == Method::clipped_weight_decay;
  if (decays && !(options.strength > 0 && options.strength <= 1))
    fail(Exit::config, "constraint.strength of ", options.method, " must be above 0 and at most 1, it is ", options.strength);
  for (size_t p = 0; p < store.parameters().size(); p++)
    if (store.parameters()[p].kind == ParameterKind::embedding) embeddings_.push_back(int(p));

  if (method_ == Method::weight_decay || method_ == Method::clipped_weight_decay) return;
  int64_t size = 0;
  for (const WeightMatrix& m : matrices_) {
    vector_at_.push_back(size);
    size += m.smaller();
  }
  if (size) vectors = Tensor::empty({size}, store.dtype());
  for (size_t i = 0; i < matrices_.size(); i++) {
    const RandomStream stream(uint64_t(matrices_[i].group), "constraint." + store.parameters()[matrices_[i].parameter].name);
    dispatch(store.dtype(), [&]<class T>() {
      for (int64_t j = 0; j < matrices_[i].smaller(); j++) {
        const Words w = stream.words(0, uint64_t(j), 0);
        vectors.data<T>()[vector_at_[i] + j] = T(float(normal_from(w[0], w[1])));
      }
    });
  }
}

bool Constraint::promises() const {
  return method_ == Method::normalize || method_ == Method::stiefel || method_ == Method::soft_cap || method_ == Method::hard_cap;
}

template <class T>
double Constraint::estimate(const WeightMatrix& m, int64_t index, std::vector<double>& left, std::vector<double>& right) {
  left.resize(m.rows), right.resize(m.columns);
  const T* w = store_.values().data<T>() + m.offset;
  T* x = vectors.data<T>() + vector_at_[index];
  double sigma = 0;
  for (int i = 0; i < options_.power_iterations; i++) sigma = power_iteration(w, m.rows, m.columns, x, left.data(), right.data());
  return sigma;
}

template <class T> void Constraint::map(const WeightMatrix& m, int64_t index, double lr, double decay, const UpdateNorm& update_norm) {
  T* w = store_.values().data<T>() + m.offset;
  std::vector<double> left, right;
  switch (method_) {
    case Method::weight_decay:   // with Muon's steps of norm lr the balance is at 1 / strength
      return multiply(w, m.size(), 1 - lr * (options_.strength > 0 ? options_.strength : 1 / options_.sigma_max));
    case Method::spectral_weight_decay: {
      const double sigma = estimate<T>(m, index, left, right);
      return add_rank_one(w, m.rows, m.columns, -options_.strength * sigma, left.data(), right.data());
    }
    case Method::hammer: {
      const double sigma = estimate<T>(m, index, left, right);
      if (sigma == 0) return;   // a matrix of zeros has no direction to raise
      return add_rank_one(w, m.rows, m.columns, limit(m) - sigma, left.data(), right.data());
    }
    case Method::normalize: return;   // enforce() is just that
    case Method::stiefel: return stiefel(w, m.rows, m.columns, storable(limit(m), m.smaller(), dtype_of<T>));
    case Method::soft_cap: {
      std::optional<double> k = update_norm(m);
      if (k) *k += options_.sigma_max * (1 - decay);
      else k = proved_bound(GramMatrix(w, m.rows, m.columns), estimate<T>(m, index, left, right)) / m.scale();
      const double strength = soft_cap_strength(options_.sigma_max, *k) / (m.scale() * m.scale());
      return strength > 0 ? soft_cap(w, m.rows, m.columns, strength) : void();
    }
    case Method::hard_cap:   // within the cap it changes nothing, at some cost and rounding
      if (!GramMatrix(w, m.rows, m.columns).within(limit(m))) hard_cap(w, m.rows, m.columns, storable(limit(m), m.smaller(), dtype_of<T>), 1);
      return;
    case Method::clipped_weight_decay: return hard_cap(w, m.rows, m.columns, limit(m), options_.strength);
  }
}

template <class T> void Constraint::enforce(const WeightMatrix& m, int64_t index) {
  T* w = store_.values().data<T>() + m.offset;
  double squares = 0;
  for (int64_t i = 0; i < m.size(); i++) squares += double(w[i]) * double(w[i]);
  if (std::sqrt(squares) <= limit(m) * (1 - 1e-9)) return;   // the Frobenius norm bounds it too
  const GramMatrix gram(w, m.rows, m.columns);
  if (gram.within(limit(m))) return;
  std::vector<double> left, right;
  const double bound = proved_bound(gram, estimate<T>(m, index, left, right));
  if (!std::isfinite(bound)) return;   // a weight that is not finite is for the guard
  multiply(w, m.size(), storable(limit(m), m.smaller(), dtype_of<T>) / bound);
}

template <class T> void Constraint::cap_rows(const ParameterInfo& embedding) {
  const int64_t width = embedding.shape[-1], rows = embedding.size() / width;
  for (int64_t r = 0; r < rows; r++) {
    T* row = store_.values().data<T>() + embedding.offset + r * width;
    double squares = 0;
    for (int64_t c = 0; c < width; c++) squares += double(row[c]) * double(row[c]);
    const double rms = std::sqrt(squares / double(width));
    if (rms > 1) multiply(row, width, (1 - double(std::numeric_limits<T>::epsilon())) / rms);
  }
}

void Constraint::apply(Workers& workers, double lr, double decay, const UpdateNorm& update_norm) {
  dispatch(store_.dtype(), [&]<class T>() {
    if constexpr (!std::is_same_v<T, bf16>) {   // weights are kept in f32 or f64
      workers.run(int64_t(matrices_.size()), [&](int64_t i) {
        map<T>(matrices_[i], i, lr, decay, update_norm);
        if (promises()) enforce<T>(matrices_[i], i);
      });
      for (const int e : embeddings_) cap_rows<T>(store_.parameters()[e]);
    }
  });
}

void Constraint::enforce(Workers& workers) {
  if (!promises()) return;
  dispatch(store_.dtype(), [&]<class T>() {
    if constexpr (!std::is_same_v<T, bf16>) {
      workers.run(int64_t(matrices_.size()), [&](int64_t i) { enforce<T>(matrices_[i], i); });
      for (const int e : embeddings_) cap_rows<T>(store_.parameters()[e]);
    }
  });
}
