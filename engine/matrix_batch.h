// matrix_batch.h: many matrices of one flat buffer, each with a vector on its left and one on its right, in a few launches whatever their number.
#pragma once
#include <vector>

#include "engine/tensor.h"

class MatrixBatch {
 public:
  struct Matrix {
    int64_t offset, rows, columns;   // [rows, columns] at `offset` of the flat buffer
  };
  // What a kernel knows of a matrix: where it and its vectors lie, and the pieces (runs of rows) that it is worked through in.
  struct Row {
    int64_t offset, rows, columns, left, right, first_piece, pieces, first_partial;
  };
  MatrixBatch(const std::vector<Matrix>& matrices, Device device);

  void load_right(const Tensor& vectors, const Tensor& places) const;   // right_i = the numbers from places[i] on; places: table_of int64_t [matrices]
  void to_left(const Tensor& flat) const;    // left = A right of each
  void to_right(const Tensor& flat) const;   // right = A^T left
  void to_both(const Tensor& flat) const;    // left = A right, then right = A^T left, in one read of A
  void inner(const Tensor& a, const Tensor& b, const Tensor& products) const;   // products[i] = sum of A_i B_i, f64 [matrices]
  void add_outer(const Tensor& flat, const Tensor& factors) const;              // A_i += factors[i] left_i right_i^T, f64 [matrices]

  void multiply(const Tensor& flat, const Tensor& factors) const;               // A_i *= factors[i]

  int64_t size() const { return matrices_; }
  const Row* rows() const { return reinterpret_cast<const Row*>(table_.raw()); }   // [matrices], where the kernels are
  double* left() const { return left_.data<double>(); }                            // those of all matrices behind one another
  double* right() const { return right_.data<double>(); }

 private:
  void products(const Tensor& flat, bool makes_left, bool makes_right) const;

  int64_t matrices_ = 0, pieces_ = 0, columns_ = 0;
  Tensor table_, piece_table_, column_table_;
  Tensor left_, right_, partial_, partial_sums_;   // f64
};

// f<T>() with the type in which weights, their gradients and buffers are kept.
template <class F> void with_weight_type(DType dtype, F&& f) {
  if (dtype == DType::f64) f.template operator()<double>();
  else f.template operator()<float>();
}

// The rows of a table as bytes on a device.
template <class Row> Tensor table_of(const std::vector<Row>& rows, Device device) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(rows.data());
  return Tensor::from(Shape{int64_t(rows.size() * sizeof(Row))}, std::vector<uint8_t>(bytes, bytes + rows.size() * sizeof(Row)), DType::u8, device);
}
