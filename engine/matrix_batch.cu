// matrix_batch.cu: matrices in runs of rows, a warp each; what the runs give is summed in their order. All vectors and sums are f64.
#include "engine/matrix_batch.h"

#include <algorithm>

#include "engine/map.h"

namespace {

using Row = MatrixBatch::Row;
constexpr int64_t rows_a_piece = 32;

struct Piece {
  int64_t matrix, begin, end, partial;   // rows begin .. end-1; where its part of right [columns] goes
};

template <class T> struct LoadRight {
  const T* vectors;
  const Row* matrices;
  const int64_t* places;
  double* right;
  template <class Team> HD void operator()(int64_t i, const Team& team) const {
    const Row m = matrices[i];
    const T* from = vectors + places[i];
    double* to = right + m.right;
    team.each(m.columns, [&](int64_t j) { to[j] = double(from[j]); });
  }
};

template <class T> struct Products {
  const T* flat;
  const Row* matrices;
  const Piece* pieces;
  double *left, *partial;
  const double* right;
  bool makes_left, makes_right;
  template <class Team> HD void operator()(int64_t i, const Team& team) const {
    const Piece p = pieces[i];
    const Row m = matrices[p.matrix];
    const double* x = right + m.right;
    double *y = left + m.left, *z = partial + p.partial;
    for (int64_t r = p.begin; r < p.end; r++) {
      const T* a = flat + m.offset + r * m.columns;
      const double along = makes_left ? team.template sum<double>(m.columns, [&](int64_t j) { return double(a[j]) * x[j]; }) : y[r];
      if (makes_left && team.leads()) y[r] = along;
      if (!makes_right) continue;
      const bool first = r == p.begin;
      team.each(m.columns, [&](int64_t j) { z[j] = (first ? 0 : z[j]) + along * double(a[j]); });
    }
  }
};

struct SumColumns {   // a column of a matrix each
  const double* partial;
  const Row* matrices;
  const int32_t* columns;   // [columns, 2]: matrix, column
  double* right;
  HD void operator()(int64_t i) const {
    const Row m = matrices[columns[2 * i]];
    const int64_t column = columns[2 * i + 1];
    double sum = 0;
    for (int64_t p = 0; p < m.pieces; p++) sum += partial[m.first_partial + p * m.columns + column];
    right[m.right + column] = sum;
  }
};

template <class T> struct PieceInner {
  const T *a, *b;
  const Row* matrices;
  const Piece* pieces;
  double* sums;
  template <class Team> HD void operator()(int64_t i, const Team& team) const {
    const Piece p = pieces[i];
    const Row m = matrices[p.matrix];
    const T *x = a + m.offset + p.begin * m.columns, *y = b + m.offset + p.begin * m.columns;
    const double sum = team.template sum<double>((p.end - p.begin) * m.columns, [&](int64_t j) { return double(x[j]) * double(y[j]); });
    if (team.leads()) sums[i] = sum;
  }
};

struct SumPieces {
  const double* sums;
  const Row* matrices;
  double* products;
  template <class Team> HD void operator()(int64_t i, const Team& team) const {
    const Row m = matrices[i];
    const double sum = team.template sum<double>(m.pieces, [&](int64_t p) { return sums[m.first_piece + p]; });
    if (team.leads()) products[i] = sum;
  }
};

template <class T> struct AddOuter {
  T* flat;
  const Row* matrices;
  const Piece* pieces;
  const double *left, *right, *factors;
  template <class Team> HD void operator()(int64_t i, const Team& team) const {
    const Piece p = pieces[i];
    const Row m = matrices[p.matrix];
    const double* x = right + m.right;
    for (int64_t r = p.begin; r < p.end; r++) {
      T* a = flat + m.offset + r * m.columns;
      const double along = factors[p.matrix] * left[m.left + r];
      team.each(m.columns, [&](int64_t j) { a[j] = T(double(a[j]) + along * x[j]); });
    }
  }
};

template <class T> struct Multiply {
  T* flat;
  const Row* matrices;
  const Piece* pieces;
  const double* factors;
  template <class Team> HD void operator()(int64_t i, const Team& team) const {
    const Piece p = pieces[i];
    const Row m = matrices[p.matrix];
    const double factor = factors[p.matrix];
    T* a = flat + m.offset + p.begin * m.columns;
    if (factor == 1) return;
    team.each((p.end - p.begin) * m.columns, [&](int64_t j) { a[j] = T(double(a[j]) * factor); });
  }
};

const Piece* pieces_of(const Tensor& table) { return reinterpret_cast<const Piece*>(table.raw()); }

}  // namespace

MatrixBatch::MatrixBatch(const std::vector<Matrix>& matrices, Device device) : matrices_(int64_t(matrices.size())) {
  std::vector<Row> rows;
  std::vector<Piece> pieces;
  std::vector<int32_t> columns;
  int64_t left = 0, right = 0, partial = 0;
  for (const Matrix& m : matrices) {
    const int64_t count = (m.rows + rows_a_piece - 1) / rows_a_piece;
    rows.push_back({m.offset, m.rows, m.columns, left, right, int64_t(pieces.size()), count, partial});
    for (int64_t begin = 0; begin < m.rows; begin += rows_a_piece, partial += m.columns)
      pieces.push_back({int64_t(rows.size()) - 1, begin, std::min(m.rows, begin + rows_a_piece), partial});
    for (int64_t c = 0; c < m.columns; c++) columns.insert(columns.end(), {int32_t(rows.size()) - 1, int32_t(c)});
    left += m.rows, right += m.columns;
  }
  pieces_ = int64_t(pieces.size());
  columns_ = right;
  table_ = table_of(rows, device);
  piece_table_ = table_of(pieces, device);
  column_table_ = Tensor::from(Shape{int64_t(columns.size())}, columns, DType::i32, device);
  left_ = Tensor::zeros({left}, DType::f64, device);
  right_ = Tensor::zeros({right}, DType::f64, device);
  partial_ = Tensor::empty({partial}, DType::f64, device);
  partial_sums_ = Tensor::empty({pieces_}, DType::f64, device);
}

void MatrixBatch::load_right(const Tensor& vectors, const Tensor& places) const {
  with_weight_type(vectors.dtype(), [&]<class T>() {
    map_rows(vectors.device(), matrices_, LoadRight<T>{vectors.data<T>(), rows(), reinterpret_cast<const int64_t*>(places.raw()), right()});
  });
}

void MatrixBatch::products(const Tensor& flat, bool makes_left, bool makes_right) const {
  with_weight_type(flat.dtype(), [&]<class T>() {
    map_rows(flat.device(), pieces_,
             Products<T>{flat.data<T>(), rows(), pieces_of(piece_table_), left(), partial_.data<double>(), right(), makes_left, makes_right});
  });
  if (makes_right) map(flat.device(), columns_, SumColumns{partial_.data<double>(), rows(), column_table_.data<int32_t>(), right()});
}

void MatrixBatch::to_left(const Tensor& flat) const { products(flat, true, false); }
void MatrixBatch::to_right(const Tensor& flat) const { products(flat, false, true); }
void MatrixBatch::to_both(const Tensor& flat) const { products(flat, true, true); }

void MatrixBatch::inner(const Tensor& a, const Tensor& b, const Tensor& products) const {
  check(a.dtype() == b.dtype(), "[matrix_batch] ", a.dtype(), " and ", b.dtype(), " must be one type");
  with_weight_type(a.dtype(), [&]<class T>() {
    map_rows(a.device(), pieces_, PieceInner<T>{a.data<T>(), b.data<T>(), rows(), pieces_of(piece_table_), partial_sums_.data<double>()});
  });
  map_rows(a.device(), matrices_, SumPieces{partial_sums_.data<double>(), rows(), products.data<double>()});
}

void MatrixBatch::add_outer(const Tensor& flat, const Tensor& factors) const {
  with_weight_type(flat.dtype(), [&]<class T>() {
    map_rows(flat.device(), pieces_, AddOuter<T>{flat.data<T>(), rows(), pieces_of(piece_table_), left(), right(), factors.data<double>()});
  });
}

void MatrixBatch::multiply(const Tensor& flat, const Tensor& factors) const {
  with_weight_type(flat.dtype(), [&]<class T>() {
    map_rows(flat.device(), pieces_, Multiply<T>{flat.data<T>(), rows(), pieces_of(piece_table_), factors.data<double>()});
  });
}
