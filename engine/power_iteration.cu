// power_iteration.cu: matrices as a MatrixBatch has them; depthwise maps an element a thread, all maps in one launch.
#include "engine/power_iteration.h"

#include "engine/map.h"

namespace {

struct MapRow {   // all i64
  int64_t offset, channels, kernel, height, width, vector, stride, first_element, first_channel;
};

struct Normalise {   // sigma of a matrix and its next v
  const MatrixBatch::Row* matrices;
  const int64_t* places;
  const double *left, *right;
  float* vectors;
  double* sigma;
  template <class Team> HD void operator()(int64_t i, const Team& team) const {
    const MatrixBatch::Row m = matrices[i];
    const auto norm_of = [&](const double* x, int64_t n) { return sqrt(team.template sum<double>(n, [&](int64_t j) { return x[j] * x[j]; })); };
    const double *z = right + m.right, stretch = norm_of(left + m.left, m.rows), norm = norm_of(z, m.columns);
    if (team.leads()) sigma[i] = stretch;
    if (!(norm > 0) || !(norm - norm == 0)) return;
    float* v = vectors + places[i];
    team.each(m.columns, [&](int64_t j) { v[j] = float(z[j] / norm); });
  }
};

HD MapRow map_of(const MapRow* maps, int64_t count, int64_t element) {
  int64_t i = 0;
  while (i + 1 < count && maps[i + 1].first_element <= element) i++;
  return maps[i];
}

template <class T> struct Correlate {
  const T* weights;
  const float* from;
  const MapRow* maps;
  int64_t count;
  bool adjoint, from_vectors;   // where x lies: as the vectors do, or behind one another
  float* to;
  HD void operator()(int64_t e) const {
    const MapRow m = map_of(maps, count, e);
    const int64_t at = e - m.first_element, c = at % m.channels, row = at / m.channels / m.width, column = at / m.channels % m.width, half = m.kernel / 2;
    const float* x = from_vectors ? from + m.vector + c : from + m.first_element + c;
    const int64_t stride = from_vectors ? m.stride : m.channels, taps = m.kernel * m.kernel;
    const T* w = weights + m.offset + c * taps;
    float sum = 0;
    for (int64_t i = 0; i < m.kernel; i++) {
      const int64_t y = row + i - half;
      if (y < 0 || y >= m.height) continue;
      for (int64_t j = 0; j < m.kernel; j++) {
        const int64_t k = column + j - half;
        if (k < 0 || k >= m.width) continue;
        const int64_t tap = i * m.kernel + j;
        sum += float(w[adjoint ? taps - 1 - tap : tap]) * x[(y * m.width + k) * stride];
      }
    }
    to[e] = sum;
  }
};

struct ChannelNorms {   // a channel of a map each
  const float* from;
  const MapRow* maps;
  const int32_t* channels;   // [channels]: its map
  double* norms;
  HD void operator()(int64_t i) const {
    const MapRow m = maps[channels[i]];
    const float* x = from + m.first_element + (i - m.first_channel);
    double sum = 0;
    for (int64_t p = 0; p < m.height * m.width; p++) sum += double(x[p * m.channels]) * double(x[p * m.channels]);
    norms[i] = sqrt(sum);
  }
};

struct LargestNorm {
  const double* norms;
  const MapRow* maps;
  double* sigma;
  template <class Team> HD void operator()(int64_t i, const Team& team) const {
    const MapRow m = maps[i];
    const double largest = team.template max<double>(m.channels, [&](int64_t c) { return norms[m.first_channel + c]; });
    const double zeros = team.template sum<double>(m.channels, [&](int64_t c) { return 0 * norms[m.first_channel + c]; });   // NaN if one is not finite
    if (team.leads()) sigma[i] = largest + zeros;
  }
};

struct NormaliseMaps {
  const float* back;
  const double* norms;
  const MapRow* maps;
  int64_t count;
  float* vectors;
  HD void operator()(int64_t e) const {
    const MapRow m = map_of(maps, count, e);
    const int64_t at = e - m.first_element, c = at % m.channels;
    const double norm = norms[m.first_channel + c];
    vectors[m.vector + at / m.channels * m.stride + c] = norm > 0 && norm - norm == 0 ? float(back[e] / norm) : back[e];
  }
};

std::vector<MatrixBatch::Matrix> places_of(const std::vector<PowerIteration::Matrix>& matrices) {
  std::vector<MatrixBatch::Matrix> all;
  for (const auto& m : matrices) all.push_back({m.offset, m.rows, m.columns});
  return all;
}

}  // namespace

PowerIteration::PowerIteration(const std::vector<Matrix>& matrices, const std::vector<Depthwise>& maps, Device device)
    : batch_(places_of(matrices), device), maps_(int64_t(maps.size())) {
  std::vector<int32_t> channels;
  std::vector<int64_t> vectors;
  std::vector<MapRow> map_rows;
  for (const Matrix& m : matrices) vectors.push_back(m.vector);
  for (const Depthwise& d : maps) {
    map_rows.push_back({d.offset, d.channels, d.kernel, d.height, d.width, d.vector, d.stride, elements_, channels_});
    elements_ += d.channels * d.height * d.width;
    channels_ += d.channels;
    channels.insert(channels.end(), size_t(d.channels), int32_t(map_rows.size()) - 1);
  }
  vector_table_ = table_of(vectors, device);
  map_table_ = table_of(map_rows, device);
  channel_table_ = Tensor::from(Shape{channels_}, channels, DType::i32, device);
  image_ = Tensor::empty({elements_}, DType::f32, device);
  back_ = Tensor::empty({elements_}, DType::f32, device);
  norms_ = Tensor::empty({channels_}, DType::f64, device);
  sigma_ = Tensor::zeros({batch_.size() + maps_}, DType::f64, device);
}

void PowerIteration::iterate(const Tensor& weights, const Tensor& vectors) const {
  const Device device = weights.device();
  const auto* maps = reinterpret_cast<const MapRow*>(map_table_.raw());
  float *v = vectors.data<float>(), *image = image_.data<float>(), *back = back_.data<float>();
  double *norms = norms_.data<double>(), *sigma = sigma_.data<double>();
  const int32_t* channels = channel_table_.data<int32_t>();
  batch_.load_right(vectors, vector_table_);
  batch_.to_both(weights);
  map_rows(device, batch_.size(), Normalise{batch_.rows(), reinterpret_cast<const int64_t*>(vector_table_.raw()), batch_.left(), batch_.right(), v, sigma});
  dispatch(weights.dtype(), [&]<class T>() {
    const T* w = weights.data<T>();
    map(device, elements_, Correlate<T>{w, v, maps, maps_, false, true, image});
    map(device, elements_, Correlate<T>{w, image, maps, maps_, true, false, back});
  });
  map(device, channels_, ChannelNorms{image, maps, channels, norms});
  map_rows(device, maps_, LargestNorm{norms, maps, sigma + batch_.size()});
  map(device, channels_, ChannelNorms{back, maps, channels, norms});
  map(device, elements_, NormaliseMaps{back, norms, maps, maps_, v});
}
