// shape.h: the extents of a tensor, up to six of them, as a plain value.
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>
#include <ostream>
#include <vector>

#include "engine/check.h"

class Shape {
 public:
  static constexpr int max_rank = 6;

  Shape() = default;
  Shape(std::initializer_list<int64_t> dims) { assign(dims.begin(), dims.end()); }
  explicit Shape(const std::vector<int64_t>& dims) { assign(dims.begin(), dims.end()); }

  int rank() const { return rank_; }
  int64_t operator[](int i) const { return dims_[i < 0 ? rank_ + i : i]; }   // [-1] is the last
  int64_t size() const {
    int64_t n = 1;
    for (int i = 0; i < rank_; i++) n *= dims_[i];
    return n;
  }
  // Number of rows when the last dimension is taken as the row: size / last.
  int64_t rows() const { return rank_ == 0 ? 1 : size() / std::max<int64_t>(1, dims_[rank_ - 1]); }
  std::vector<int64_t> dims() const { return {dims_.begin(), dims_.begin() + rank_}; }

  bool operator==(const Shape& other) const {
    return rank_ == other.rank_ && std::equal(dims_.begin(), dims_.begin() + rank_, other.dims_.begin());
  }

 private:
  template <class It> void assign(It begin, It end) {
    check(end - begin <= max_rank, "[shape] at most ", max_rank, " dimensions, given ", end - begin);
    rank_ = int(end - begin);
    std::copy(begin, end, dims_.begin());
    for (int i = 0; i < rank_; i++) check(dims_[i] >= 0, "[shape] dimensions must not be negative, given ", dims_[i]);
  }
  std::array<int64_t, max_rank> dims_{};
  int rank_ = 0;
};

inline std::ostream& operator<<(std::ostream& out, const Shape& shape) {
  out << '[';
  for (int i = 0; i < shape.rank(); i++) out << (i ? ", " : "") << shape[i];
  return out << ']';
}
