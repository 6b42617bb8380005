// small_gemm.h: products and transposes of matrices that fit into the caches next to the core, where a library call costs more than the
// work. CPU only; rows are padded to whole vectors by the caller.
#pragma once
#include <cstdint>
#include <type_traits>

#ifdef __AVX512F__
inline constexpr int vector_bytes = 64;
#else
inline constexpr int vector_bytes = 32;
#endif
template <class C> inline constexpr int lanes = vector_bytes / int(sizeof(C));
template <class C> constexpr int padded(int n) { return (n + lanes<C> - 1) / lanes<C> * lanes<C>; }

// One vector register; may lie at any address that suits a C.
template <class C> struct Vector {
  typedef C type __attribute__((vector_size(vector_bytes), aligned(sizeof(C)), may_alias));
  static type load(const C* p) { return *reinterpret_cast<const type*>(p); }
  static void store(C* p, type v) { *reinterpret_cast<type*>(p) = v; }
};

// c = init + op(a) b in row-major order: op(a) [m, k], b [k, n], init and c [m, n]; n whole vectors; a null init is zero. With TransposeA,
// a is stored [k, m].
template <class C> struct SmallGemm {
  int m, n, k;
  const C* a;
  int64_t a_stride;
  const C* b;
  int64_t b_stride;
  const C* init;
  C* c;
  int64_t c_stride;
};

// Rows x Vectors of c, held in registers.
template <bool TransposeA, int Rows, int Vectors, class C>
inline void small_tile(const SmallGemm<C>& g, int row, int column) {
  using V = Vector<C>;
  // Copies, because a store of a vector might change what g says, for all the compiler knows.
  const int64_t a_stride = g.a_stride, b_stride = g.b_stride, c_stride = g.c_stride, corner = row * c_stride + column;
  const C *a = TransposeA ? g.a + row : g.a + row * a_stride, *b = g.b + column, *init = g.init;
  C* c = g.c + corner;
  const int k = g.k;
  typename V::type sum[Rows][Vectors] = {};
  if (init)
#pragma GCC unroll 8
    for (int r = 0; r < Rows; r++)
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; v++) sum[r][v] = V::load(init + corner + r * c_stride + v * lanes<C>);
  for (int p = 0; p < k; p++) {
    typename V::type right[Vectors];
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; v++) right[v] = V::load(b + v * lanes<C>);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; r++) {
      const C left = TransposeA ? a[r] : a[r * a_stride];
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; v++) sum[r][v] += left * right[v];
    }
    a += TransposeA ? a_stride : 1;
    b += b_stride;
  }
#pragma GCC unroll 8
  for (int r = 0; r < Rows; r++)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; v++) V::store(c + r * c_stride + v * lanes<C>, sum[r][v]);
}

// A column of tiles. The rows are dealt out evenly, so that no tile is too low to hide the latency of a multiply-add.
template <bool TransposeA, int MaxRows, int Vectors, class C>
inline void small_panel(const SmallGemm<C>& g, int column) {
  const int tiles = (g.m + MaxRows - 1) / MaxRows;
  for (int t = 0, row = 0; t < tiles; t++) {
    const int rows = g.m / tiles + (t < g.m % tiles);
    switch (rows) {
      case 6: if constexpr (MaxRows >= 6) small_tile<TransposeA, 6, Vectors>(g, row, column); break;
      case 5: if constexpr (MaxRows >= 5) small_tile<TransposeA, 5, Vectors>(g, row, column); break;
      case 4: small_tile<TransposeA, 4, Vectors>(g, row, column); break;
      case 3: small_tile<TransposeA, 3, Vectors>(g, row, column); break;
      case 2: small_tile<TransposeA, 2, Vectors>(g, row, column); break;
      default: small_tile<TransposeA, 1, Vectors>(g, row, column);
    }
    row += rows;
  }
}

// Sixteen registers take 6 x 2 or 4 x 3 sums, two or three parts of b and one of a.
template <bool TransposeA, class C> void small_gemm(const SmallGemm<C>& g) {
  for (int column = 0; column < g.n;) {
    const int left = (g.n - column) / lanes<C>;
    const int vectors = left == 1 || left == 3 ? left : 2;
    if (vectors == 1) small_panel<TransposeA, 6, 1>(g, column);
    if (vectors == 2) small_panel<TransposeA, 6, 2>(g, column);
    if (vectors == 3) small_panel<TransposeA, 4, 3>(g, column);
    column += vectors * lanes<C>;
  }
}

// The part of a pair of rows that a step of the transpose exchanges: lane i of the first row's new value comes from lane i of the
// first, or from lane i - step of the second (which counts from `lanes`); the second row's new value mirrors it.
template <class C> struct Exchange {
  using Index = std::conditional_t<sizeof(C) == 4, int32_t, int64_t>;
  typedef Index type __attribute__((vector_size(vector_bytes)));
  static constexpr type low(int step) {
    type mask{};
    for (int i = 0; i < lanes<C>; i++) mask[i] = i & step ? lanes<C> + i - step : i;
    return mask;
  }
  static constexpr type high(int step) {
    type mask{};
    for (int i = 0; i < lanes<C>; i++) mask[i] = i & step ? lanes<C> + i : i + step;
    return mask;
  }
};

template <int Step, class C> inline void exchange_rows(typename Vector<C>::type (&row)[lanes<C>]) {
  if constexpr (Step < lanes<C>) {
#pragma GCC unroll 16
    for (int i = 0; i < lanes<C>; i++) {
      if (i & Step) continue;
      const auto a = row[i], b = row[i + Step];
      row[i] = __builtin_shuffle(a, b, Exchange<C>::low(Step));
      row[i + Step] = __builtin_shuffle(a, b, Exchange<C>::high(Step));
    }
    exchange_rows<Step * 2, C>(row);
  }
}

// to [columns, rows] = factor * from [rows, columns], transposed; both dimensions are whole vectors.
template <class C> void small_transpose(int rows, int columns, const C* from, C factor, C* to) {
  for (int i = 0; i < rows; i += lanes<C>)
    for (int j = 0; j < columns; j += lanes<C>) {
      typename Vector<C>::type block[lanes<C>];
#pragma GCC unroll 16
      for (int l = 0; l < lanes<C>; l++) block[l] = factor * Vector<C>::load(from + (i + l) * columns + j);
      exchange_rows<1, C>(block);
#pragma GCC unroll 16
      for (int l = 0; l < lanes<C>; l++) Vector<C>::store(to + (j + l) * rows + i, block[l]);
    }
}
