// power_iteration.cu: matrices in runs of rows, a warp each: y_r = w_r v and z += y_r w_r while the row is at hand; the runs' z are summed in
// order. Depthwise maps an element a thread, all maps in one launch.
#include "engine/power_iteration.h"

#include <algorithm>

#include "engine/map.h"
#include "engine/matrix_batch.h"

namespace {

constexpr int64_t rows_a_piece = 32;

// Rows of the tables, all i64.
struct MatrixRow {
  int64_t offset, rows, columns, vector, first_piece, pieces, first_partial;
};
struct PieceRow {
  int64_t matrix, begin, end, partial;   // rows begin .. end-1; where its z [columns] goes
};
struct MapRow {
  int64_t offset, channels, kernel, height, width, vector, stride, first_element, first_channel;
};

template <class T> struct Products {
  const T* weights;
  const float* vectors;
  const MatrixRow* matrices;
  const PieceRow* pieces;
  float* partial;
  double* squares;
  template <class Team> HD void operator()(int64_t i, const Team& team) const {
    const PieceRow p = pieces[i];
    const MatrixRow m = matrices[p.matrix];
    const float* v = vectors + m.vector;
    float* z = partial + p.partial;
    double sum = 0;
    for (int64_t r = p.begin; r < p.end; r++) {
      const T* w = weights + m.offset + r * m.columns;
      const float y = team.template sum<float>(m.columns, [&](int64_t j) { return float(w[j]) * v[j]; });
      const bool first = r == p.begin;
      team.each(m.columns, [&](int64_t j) { z[j] = (first ? 0 : z[j]) + y * float(w[j]); });
      sum += double(y) * double(y);
    }
    if (team.leads()) squares[i] = sum;
  }
};

struct ColumnSum {   // z of a matrix, a column each
  const float* partial;
  const MatrixRow* matrices;
  const int32_t* column_table;   // [columns, 2]: matrix, column
  float* product;
  HD void operator()(int64_t i) const {
    const MatrixRow m = matrices[column_table[2 * i]];
    const int64_t column = column_table[2 * i + 1];
    float sum = 0;
    for (int64_t p = 0; p < m.pieces; p++) sum += partial[m.first_partial + p * m.columns + column];
    product[m.vector + column] = sum;
  }
};

struct Normalise {   // sigma of a matrix and its next v
  const MatrixRow* matrices;
  const double* squares;
  const float* product;
  float* vectors;
  double* sigma;
  template <class Team> HD void operator()(int64_t i, const Team& team) const {
    const MatrixRow m = matrices[i];
    const double sum = team.template sum<double>(m.pieces, [&](int64_t p) { return squares[m.first_piece + p]; });
    if (team.leads()) sigma[i] = sqrt(sum);
    const float* z = product + m.vector;
    float* v = vectors + m.vector;
    const double norm = sqrt(team.template sum<double>(m.columns, [&](int64_t j) { return double(z[j]) * double(z[j]); }));
    if (!(norm > 0) || !(norm - norm == 0)) return;
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

}  // namespace

PowerIteration::PowerIteration(const std::vector<Matrix>& matrices, const std::vector<Depthwise>& maps, Device device)
    : matrices_(int64_t(matrices.size())), maps_(int64_t(maps.size())) {
  std::vector<MatrixRow> matrix_rows;
  std::vector<PieceRow> piece_rows;
  std::vector<int32_t> columns, channels;
  std::vector<MapRow> map_rows;
  int64_t partial = 0, vectors = 0;
  for (const Matrix& m : matrices) {
    const int64_t pieces = (m.rows + rows_a_piece - 1) / rows_a_piece;
    matrix_rows.push_back({m.offset, m.rows, m.columns, m.vector, int64_t(piece_rows.size()), pieces, partial});
    for (int64_t begin = 0; begin < m.rows; begin += rows_a_piece, partial += m.columns)
      piece_rows.push_back({int64_t(matrix_rows.size()) - 1, begin, std::min(m.rows, begin + rows_a_piece), partial});
    for (int64_t c = 0; c < m.columns; c++) columns.insert(columns.end(), {int32_t(matrix_rows.size()) - 1, int32_t(c)});
    vectors = std::max(vectors, m.vector + m.columns);
  }
  for (const Depthwise& d : maps) {
    map_rows.push_back({d.offset, d.channels, d.kernel, d.height, d.width, d.vector, d.stride, elements_, channels_});
    elements_ += d.channels * d.height * d.width;
    channels_ += d.channels;
    channels.insert(channels.end(), size_t(d.channels), int32_t(map_rows.size()) - 1);
  }
  pieces_ = int64_t(piece_rows.size());
  columns_ = int64_t(columns.size() / 2);
  matrix_table_ = table_of(matrix_rows, device);
  piece_table_ = table_of(piece_rows, device);
  column_table_ = Tensor::from(Shape{int64_t(columns.size())}, columns, DType::i32, device);
  partial_ = Tensor::empty({partial}, DType::f32, device);
  squares_ = Tensor::empty({pieces_}, DType::f64, device);
  product_ = Tensor::empty({vectors}, DType::f32, device);
  map_table_ = table_of(map_rows, device);
  channel_table_ = Tensor::from(Shape{channels_}, channels, DType::i32, device);
  image_ = Tensor::empty({elements_}, DType::f32, device);
  back_ = Tensor::empty({elements_}, DType::f32, device);
  norms_ = Tensor::empty({channels_}, DType::f64, device);
  sigma_ = Tensor::zeros({matrices_ + maps_}, DType::f64, device);
}

void PowerIteration::iterate(const Tensor& weights, const Tensor& vectors) const {
  const Device device = weights.device();
  const auto* matrices = reinterpret_cast<const MatrixRow*>(matrix_table_.raw());
  const auto* maps = reinterpret_cast<const MapRow*>(map_table_.raw());
  float *v = vectors.data<float>(), *image = image_.data<float>(), *back = back_.data<float>();
  double *norms = norms_.data<double>(), *sigma = sigma_.data<double>();
  const int32_t* channels = channel_table_.data<int32_t>();
  dispatch(weights.dtype(), [&]<class T>() {
    const T* w = weights.data<T>();
    const auto* pieces = reinterpret_cast<const PieceRow*>(piece_table_.raw());
    map_rows(device, pieces_, Products<T>{w, v, matrices, pieces, partial_.data<float>(), squares_.data<double>()});
    map(device, elements_, Correlate<T>{w, v, maps, maps_, false, true, image});
    map(device, elements_, Correlate<T>{w, image, maps, maps_, true, false, back});
  });
  map(device, columns_, ColumnSum{partial_.data<float>(), matrices, column_table_.data<int32_t>(), product_.data<float>()});
  map_rows(device, matrices_, Normalise{matrices, squares_.data<double>(), product_.data<float>(), v, sigma});
  map(device, channels_, ChannelNorms{image, maps, channels, norms});
  map_rows(device, maps_, LargestNorm{norms, maps, sigma + matrices_});
  map(device, channels_, ChannelNorms{back, maps, channels, norms});
  map(device, elements_, NormaliseMaps{back, norms, maps, maps_, v});
}
