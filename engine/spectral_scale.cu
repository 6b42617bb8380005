// spectral_scale.cu: the products are MatrixBatch's; here is what makes numbers of a weight of its vectors, a warp a weight.
#include "engine/spectral_scale.h"

#include "engine/map.h"

namespace {

struct Slots {
  int64_t gamma, u, alpha;
  double factor;
};

constexpr double least_sigma = 1e-6;   // a matrix of zeros stays one

template <class Team> HD double length_of(const double* x, int64_t n, const Team& team) {
  return sqrt(team.template sum<double>(n, [&](int64_t j) { return x[j] * x[j]; }));
}

template <class T> struct MakeAlpha {
  const T* weights;
  T* buffers;
  const MatrixBatch::Row* matrices;
  const Slots* places;
  double *left, *right, *sigmas;
  bool keep;
  template <class Team> HD void operator()(int64_t i, const Team& team) const {
    const MatrixBatch::Row m = matrices[i];
    const Slots p = places[i];
    double *v = left + m.left, *y = right + m.right;
    const double stretch = length_of(v, m.rows, team), length = length_of(y, m.columns, team);
    const double by_stretch = 1 / (stretch < 1e-12 ? 1e-12 : stretch), by_length = 1 / (length < 1e-12 ? 1e-12 : length);
    T* u = buffers + p.u;
    const bool stores = keep;
    team.each(m.rows, [&](int64_t j) { v[j] *= by_stretch; });
    team.each(m.columns, [&](int64_t j) {
      y[j] *= by_length;
      if (stores) u[j] = T(y[j]);
    });
    if (!team.leads()) return;
    const double measured = stretch > 0 ? length / stretch : 0, sigma = measured < least_sigma ? least_sigma : measured;
    sigmas[i] = sigma;
    const double alpha = p.factor * (p.gamma >= 0 ? double(weights[p.gamma]) : 1.0) / sigma;
    // Never 0 itself, or the way back to gamma would be lost with it.
    buffers[p.alpha] = T(alpha > -1e-20 && alpha < 1e-20 ? copysign(1e-20, alpha) : alpha);
  }
};

template <class T> struct PullGamma {   // and the factor of the rank-one term
  T* gradient;
  const T* buffers;
  const Slots* places;
  const double* sigmas;
  double* along;
  HD void operator()(int64_t i) const {
    const Slots p = places[i];
    const double inner = along[i];   // <alpha G, W>
    if (p.gamma >= 0) gradient[p.gamma] = T(inner / double(buffers[p.alpha]) * p.factor / sigmas[i]);
    along[i] = -inner / sigmas[i];
  }
};

std::vector<MatrixBatch::Matrix> matrices_of(const std::vector<SpectralScale::Weight>& weights) {
  std::vector<MatrixBatch::Matrix> all;
  for (const auto& w : weights) all.push_back(w.matrix);
  return all;
}

Tensor vectors_of(const std::vector<SpectralScale::Weight>& weights, Device device) {
  std::vector<int64_t> all;
  for (const auto& w : weights) all.push_back(w.u);
  return table_of(all, device);
}

Tensor places_of(const std::vector<SpectralScale::Weight>& weights, Device device) {
  std::vector<Slots> all;
  for (const auto& w : weights) all.push_back({w.gamma, w.u, w.alpha, w.factor});
  return table_of(all, device);
}

}  // namespace

SpectralScale::SpectralScale(const std::vector<Weight>& weights, Device device)
    : batch_(matrices_of(weights), device), table_(places_of(weights, device)), vectors_(vectors_of(weights, device)),
      sigma_(Tensor::zeros({batch_.size()}, DType::f64, device)),
      along_(Tensor::zeros({batch_.size()}, DType::f64, device)) {}

void SpectralScale::iterate(const Tensor& weights, const Tensor& buffers, bool keep) const {
  const Device device = weights.device();
  const auto* places = reinterpret_cast<const Slots*>(table_.raw());
  batch_.load_right(buffers, vectors_);
  batch_.to_both(weights);
  with_weight_type(weights.dtype(), [&]<class T>() {
    map_rows(device, batch_.size(),
             MakeAlpha<T>{weights.data<T>(), buffers.data<T>(), batch_.rows(), places, batch_.left(), batch_.right(), sigma_.data<double>(), keep});
  });
}

void SpectralScale::pull_back(const Tensor& weights, const Tensor& buffers, const Tensor& gradient) const {
  batch_.inner(gradient, weights, along_);
  with_weight_type(weights.dtype(), [&]<class T>() {
    map(weights.device(), batch_.size(),
        PullGamma<T>{gradient.data<T>(), buffers.data<T>(), reinterpret_cast<const Slots*>(table_.raw()), sigma_.data<double>(), along_.data<double>()});
  });
  batch_.add_outer(gradient, along_);
}
