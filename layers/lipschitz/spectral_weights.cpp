// spectral_weights.cpp: how u, gamma and gains start, on the host. Weights are independent, so threads do not change results.
#include "layers/lipschitz/spectral_weights.h"

#include <algorithm>
#include <cmath>

namespace {

double length(const std::vector<double>& x) {
  double squares = 0;
  for (const double v : x) squares += v * v;
  return std::sqrt(squares);
}

void normalise(std::vector<double>& x) {
  const double l = std::max(length(x), 1e-12);
  for (double& v : x) v /= l;
}

// t = W u and y = W^T t in one pass over W; y[c] is summed in the type of W over short runs of rows.
template <class T> void products(const T* w, int64_t rows, int64_t columns, const std::vector<double>& u, std::vector<double>& t, std::vector<double>& y) {
  const std::vector<T> x(u.begin(), u.end());
  std::vector<T> part(columns);
  std::fill(y.begin(), y.end(), 0.0);
  for (int64_t begin = 0; begin < rows; begin += 32) {
    std::fill(part.begin(), part.end(), T(0));
    for (int64_t r = begin; r < std::min(rows, begin + 32); r++) {
      const T* row = w + r * columns;
      T sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t c = 0; c < columns; c++) sum += row[c] * x[c];
      t[r] = double(sum);
#pragma omp simd
      for (int64_t c = 0; c < columns; c++) part[c] += sum * row[c];
    }
    for (int64_t c = 0; c < columns; c++) y[c] += double(part[c]);
  }
}

void set(const Tensor& x, const std::vector<double>& values) {
  with_weight_type(x.dtype(), [&]<class T>() { std::copy(values.begin(), values.end(), x.data<T>()); });
}

std::vector<SpectralScale::Weight> weights_of(const ParameterStore& store) {
  std::vector<SpectralScale::Weight> all;
  for (const auto& info : store.spectral_weights) {
    const ParameterInfo& w = store.parameters()[info.weight];
    const int64_t gamma = info.gamma >= 0 ? store.parameters()[info.gamma].offset : -1;
    all.push_back({{w.offset, w.shape[0], w.size() / w.shape[0]}, gamma, store.buffers()[info.u].offset, store.buffers()[info.alpha].offset, info.factor});
  }
  return all;
}

}  // namespace

SpectralWeights::SpectralWeights(ParameterStore& store) : store_(store), scale_(weights_of(store), store.device()) {}

double SpectralWeights::start_vector(size_t index) {
  const auto& info = store_.spectral_weights[index];
  const Tensor w = store_.raw(info.weight);
  const int64_t rows = w.dim(0), columns = w.size() / rows;
  const RandomStream stream(0, "spectral_weights." + store_.parameters()[info.weight].name);
  std::vector<double> u(columns), t(rows), y(columns);
  for (int64_t j = 0; j < columns; j++) {
    const Words words = stream.words(0, uint64_t(j), 0);
    u[j] = normal_from(words[0], words[1]);
  }
  normalise(u);
  double sigma = 0;
  with_weight_type(w.dtype(), [&]<class T>() {
    for (int k = 0; k < 2000; k++) {
      products(w.data<T>(), rows, columns, u, t, y);
      const double before = sigma;
      sigma = length(t);
      u = y;
      normalise(u);
      if (k > 50 && std::abs(sigma - before) <= 1e-9 * sigma) break;
    }
  });
  set(store_.raw_buffer(info.u), u);
  return sigma;
}

void SpectralWeights::start_gains(int weight, int gain) {
  const Tensor w = store_.raw(weight);
  const int64_t rows = w.dim(0), columns = w.size() / rows;
  const std::vector<double> values = w.values();
  std::vector<double> lengths(rows);
  for (int64_t r = 0; r < rows; r++) lengths[r] = length({values.begin() + r * columns, values.begin() + (r + 1) * columns});
  set(store_.raw(gain), lengths);
}

void SpectralWeights::start(Workers& workers) {
  workers.run(int64_t(store_.spectral_weights.size()), [&](int64_t i) {
    const auto& info = store_.spectral_weights[i];
    const double sigma = start_vector(size_t(i));
    if (info.gamma >= 0 && info.gamma_is_sigma) set(store_.raw(info.gamma), {sigma});
  });
  for (const auto& [weight, gain] : store_.row_gains) start_gains(weight, gain);
  say_changed();
}

void SpectralWeights::adopt(Workers& workers, const std::set<std::string>& loaded) {
  const auto has = [&](int parameter) { return loaded.contains(store_.parameters()[parameter].name); };
  workers.run(int64_t(store_.spectral_weights.size()), [&](int64_t i) {
    const auto& info = store_.spectral_weights[i];
    if (!has(info.weight) || loaded.contains(store_.buffers()[info.u].name)) return;
    const double sigma = start_vector(size_t(i));
    if (info.gamma >= 0 && !has(info.gamma)) set(store_.raw(info.gamma), {sigma});
  });
  for (const auto& [weight, gain] : store_.row_gains)
    if (has(weight) && !has(gain)) start_gains(weight, gain);
  say_changed();
}

void SpectralWeights::say_changed() {
  store_.host_changed();
  store_.host_changed_buffers();
}

void SpectralWeights::iterate(bool keep) {
  if (store_.spectral_weights.empty()) return;
  scale_.iterate(store_.values_in_use(), store_.buffer_values(), keep);
  store_.device_changed_buffers();
  store_.share_buffers();
}
