// spectral_norms.cpp: one power iteration on each weight. Weights are independent, so threads do not change the result.
#include "layers/lipschitz/spectral_norms.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/small_gemm.h"

namespace {

// One read of W does both products: y_r = w_r v, then z += y_r w_r. Returns |y| = |W v| for |v| = 1; v becomes z / |z|.
template <class T> double matrix_step(const T* w, int64_t rows, int64_t columns, float* v) {
  std::vector<float> z(columns, 0.0f);
  double squares = 0;
  for (int64_t r = 0; r < rows; r++) {
    const T* row = w + r * columns;
    float y = 0;
#pragma omp simd reduction(+ : y)
    for (int64_t c = 0; c < columns; c++) y += float(row[c]) * v[c];
    squares += double(y) * y;
#pragma GCC ivdep
    for (int64_t c = 0; c < columns; c++) z[c] += y * float(row[c]);
  }
  double norm = 0;
  for (const float x : z) norm += double(x) * x;
  norm = std::sqrt(norm);
  if (norm > 0 && std::isfinite(norm))
    for (int64_t c = 0; c < columns; c++) v[c] = float(z[c] / norm);
  return std::sqrt(squares);
}

double norm_of(const float* x, int64_t n) {
  double s = 0;
  for (int64_t i = 0; i < n; i++) s += double(x[i]) * x[i];
  return std::sqrt(s);
}

// Zero-padded correlation of every channel with its own kernel, channels side by side: x, y [height * width, stride], taps [k * k, stride]; stride is
// a multiple of a vector. Adjoint: with the kernels turned around.
void correlate(const float* x, const float* taps, bool adjoint, const ParameterInfo& info, int64_t stride, float* y) {
  using V = Vector<float>;
  constexpr int64_t vectors = 4, lane = lanes<float>;
  const int64_t height = info.map_height, width = info.map_width, k = info.shape[2], half = k / 2;
  for (int64_t c = 0; c < stride; c += vectors * lane) {   // outermost: the taps of so many channels stay in the first cache
    const int64_t count = std::min(vectors, (stride - c) / lane);
    for (int64_t row = 0; row < height; row++)
      for (int64_t column = 0; column < width; column++) {
        V::type sums[vectors] = {};
        for (int64_t ky = std::max<int64_t>(0, half - row); ky < std::min(k, height + half - row); ky++)
          for (int64_t kx = std::max<int64_t>(0, half - column); kx < std::min(k, width + half - column); kx++) {
            const int64_t tap = adjoint ? k * k - 1 - (ky * k + kx) : ky * k + kx;
            const float *w = taps + tap * stride + c, *in = x + ((row + ky - half) * width + column + kx - half) * stride + c;
            if (count == vectors)
#pragma GCC unroll 4
              for (int64_t v = 0; v < vectors; v++) sums[v] += V::load(w + v * lane) * V::load(in + v * lane);
            else
              for (int64_t v = 0; v < count; v++) sums[v] += V::load(w + v * lane) * V::load(in + v * lane);
          }
        for (int64_t v = 0; v < count; v++) V::store(y + (row * width + column) * stride + c + v * lane, sums[v]);
      }
  }
}

// The norm of each channel's map in x [n, stride].
std::vector<double> channel_norms(const std::vector<float>& x, int64_t stride) {
  std::vector<double> squares(stride, 0.0);
  for (size_t begin = 0; begin < x.size(); begin += size_t(stride))
#pragma omp simd
    for (int64_t c = 0; c < stride; c++) squares[size_t(c)] += double(x[begin + size_t(c)]) * double(x[begin + size_t(c)]);
  for (double& s : squares) s = std::sqrt(s);
  return squares;
}

int64_t padded_channels(const ParameterInfo& info) { return (info.shape[0] + lanes<float> - 1) / lanes<float> * lanes<float>; }

void normalise_channels(std::vector<float>& x, int64_t stride) {
  std::vector<double> norms = channel_norms(x, stride);
  std::vector<float> factors(norms.size(), 1.0f);
  for (size_t c = 0; c < norms.size(); c++)
    if (norms[c] > 0 && std::isfinite(norms[c])) factors[c] = float(1 / norms[c]);
  for (size_t begin = 0; begin < x.size(); begin += size_t(stride))
#pragma omp simd
    for (int64_t c = 0; c < stride; c++) x[begin + size_t(c)] *= factors[size_t(c)];
}

// Each channel is an operator of its own, so each is iterated with a vector of its own; the norm is the largest of them. v [map, stride].
template <class T> double depthwise_step(const T* w, const ParameterInfo& info, std::vector<float>& v) {
  const int64_t channels = info.shape[0], area = info.shape[2] * info.shape[2], stride = padded_channels(info);
  std::vector<float> taps(area * stride, 0.0f), y(v.size());
  for (int64_t c = 0; c < channels; c++)
    for (int64_t t = 0; t < area; t++) taps[t * stride + c] = float(w[c * area + t]);
  correlate(v.data(), taps.data(), false, info, stride, y.data());
  double largest = 0;
  for (const double sigma : channel_norms(y, stride)) largest = std::isfinite(sigma) ? std::max(largest, sigma) : sigma;
  correlate(y.data(), taps.data(), true, info, stride, v.data());
  normalise_channels(v, stride);
  return largest;
}

// The whole matrix, then each row block with a vector of its own.
template <class T> double matrix_steps(const T* w, const ParameterInfo& info, std::vector<float>& v, std::vector<double>& blocks) {
  const int64_t rows = info.shape[0], columns = info.size() / rows, count = int64_t(blocks.size());
  const double sigma = matrix_step(w, rows, columns, v.data());
  if (count == 1) blocks[0] = sigma;
  for (int64_t b = 0; b < count && count > 1; b++)
    blocks[b] = matrix_step(w + b * (rows / count) * columns, rows / count, columns, v.data() + (1 + b) * columns);
  return sigma;
}

}  // namespace

SpectralNorms::SpectralNorms(const ParameterStore& store)
    : store_(store), vectors_(store.parameters().size()), sigma_(store.parameters().size(), 0.0), block_sigmas_(sigma_.size()) {
  for (size_t i = 0; i < store.parameters().size(); i++) {
    const ParameterInfo& info = store.parameters()[i];
    int64_t n = 0;   // numbers in v
    int64_t operators = 1;
    if (info.kind == ParameterKind::matrix) {
      operators = info.row_blocks > 1 ? 1 + info.row_blocks : 1;
      n = operators * (info.size() / info.shape[0]);
    }
    if (info.kind == ParameterKind::depthwise) n = info.map_height * info.map_width * padded_channels(info);
    if (n == 0) continue;
    weights_.push_back(int(i));
    block_sigmas_[i].assign(size_t(info.row_blocks), 0.0);
    vectors_[i].resize(n);
    const RandomStream stream(0, "power_iteration." + info.name);
    for (int64_t j = 0; j < n; j++) {
      const Words w = stream.words(0, uint64_t(j), 0);
      vectors_[i][j] = float(normal_from(w[0], w[1]));
    }
    if (info.kind == ParameterKind::depthwise) {
      normalise_channels(vectors_[i], padded_channels(info));
      continue;
    }
    for (int64_t o = 0; o < operators; o++) {
      float* v = vectors_[i].data() + o * (n / operators);
      const double norm = norm_of(v, n / operators);
      for (int64_t j = 0; j < n / operators; j++) v[j] = float(v[j] / norm);
    }
  }
  const auto work = [&](int i) {
    return vectors_[i].size() * (store.parameters()[i].kind == ParameterKind::depthwise ? 98 : store.parameters()[i].shape[0]);
  };
  std::stable_sort(weights_.begin(), weights_.end(), [&](int a, int b) { return work(a) > work(b); });
  if (store.device() != Device{}) place_on_device();
}

void SpectralNorms::place_on_device() {
  std::vector<PowerIteration::Matrix> matrices;
  std::vector<PowerIteration::Depthwise> maps;
  std::vector<int64_t> starts;   // of each parameter's vectors
  for (int64_t at = 0; const auto& v : vectors_) starts.push_back(at), at += int64_t(v.size());
  for (const int i : weights_) {
    const ParameterInfo& info = store_.parameters()[i];
    const int64_t rows = info.shape[0], columns = info.size() / rows, count = int64_t(block_sigmas_[i].size());
    if (info.kind == ParameterKind::depthwise) {
      maps.push_back({info.offset, rows, info.shape[2], info.map_height, info.map_width, starts[i], padded_channels(info)});
      continue;
    }
    matrices.push_back({info.offset, rows, columns, starts[i]});
    for (int64_t b = 0; b < count && count > 1; b++)
      matrices.push_back({info.offset + b * (rows / count) * columns, rows / count, columns, starts[i] + (1 + b) * columns});
  }
  on_device_ = std::make_unique<PowerIteration>(matrices, maps, store_.device());
  const std::vector<float> all = state();
  device_vectors_ = Tensor::from(Shape{int64_t(all.size())}, all, DType::f32, store_.device());
}

void SpectralNorms::iterate_on_device(int times) {
  for (int t = 0; t < times; t++) on_device_->iterate(store_.values_in_use(), device_vectors_);
  const std::vector<double> sigma = on_device_->sigma().values();
  auto next = sigma.begin();
  for (const bool depthwise : {false, true})
    for (const int i : weights_) {
      if ((store_.parameters()[i].kind == ParameterKind::depthwise) != depthwise) continue;
      sigma_[i] = *next++;
      if (block_sigmas_[i].size() == 1) block_sigmas_[i][0] = sigma_[i];
      else for (double& block : block_sigmas_[i]) block = *next++;
    }
}

void SpectralNorms::iterate(Workers& workers, int times) {
  if (on_device_) return iterate_on_device(times);
  workers.run(int64_t(weights_.size()), [&](int64_t n) {
    const int i = weights_[n];
    const ParameterInfo& info = store_.parameters()[i];
    const Tensor w = store_.raw(i);
    dispatch(w.dtype(), [&]<class T>() {
      for (int t = 0; t < times; t++) {
        if (info.kind == ParameterKind::matrix) sigma_[i] = matrix_steps(w.data<T>(), info, vectors_[i], block_sigmas_[i]);
        else sigma_[i] = block_sigmas_[i][0] = depthwise_step(w.data<T>(), info, vectors_[i]);
      }
    });
  });
}

std::vector<float> SpectralNorms::state() const {
  if (device_vectors_) {
    const Tensor host = device_vectors_.to(Device{});
    return {host.data<float>(), host.data<float>() + host.size()};
  }
  std::vector<float> all;
  for (const auto& v : vectors_) all.insert(all.end(), v.begin(), v.end());
  return all;
}

std::vector<double> SpectralNorms::measured() const {
  std::vector<double> all = sigma_;
  for (const auto& blocks : block_sigmas_) all.insert(all.end(), blocks.begin(), blocks.end());
  return all;
}

void SpectralNorms::restore(const std::vector<float>& state, const std::vector<double>& measured) {
  const char* other = "[spectral_norms] the saved norms belong to another model";
  check(measured.size() >= sigma_.size(), other);
  std::copy_n(measured.begin(), sigma_.size(), sigma_.begin());
  auto next = measured.begin() + int64_t(sigma_.size());
  for (auto& blocks : block_sigmas_) {
    check(measured.end() - next >= int64_t(blocks.size()), other);
    std::copy_n(next, blocks.size(), blocks.begin());
    next += int64_t(blocks.size());
  }
  check(next == measured.end(), other);
  size_t at = 0;
  for (auto& v : vectors_) {
    check(at + v.size() <= state.size(), "[spectral_norms] the saved vectors belong to another model");
    std::copy_n(state.begin() + at, v.size(), v.begin());
    at += v.size();
  }
  check(at == state.size(), "[spectral_norms] the saved vectors belong to another model");
  if (device_vectors_) device_vectors_.copy_from(Tensor::from(Shape{int64_t(state.size())}, state, DType::f32));
}
