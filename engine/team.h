// team.h: who shares a row: one thread with vector lanes on the CPU; a warp, or a part of one that keeps the row in registers, on CUDA.
// What they all know (j is what `each` hands out: a column, or on registers a place that turns into one):
//
//   each(n, f)                     f(j) for every column
//   sum<C>(n, f), max<C>(n, f)     of f(j) over the columns
//   read(row, n)                   the row, read once: [j] is its number in the computing type
//   write(row, n, f)               row_j = f(j), rounded; returns the row as if read
//   update(row, n, add, f)         row_j = (add ? row_j : 0) + f(j)
//   update(a, add_a, b, add_b, n, f)    the same for two rows; f(j) returns Two{to_a, to_b}. They may be one: a is written first
//   leads()                        true for the one that writes what belongs to the whole row
#pragma once
#include <cstring>
#include <limits>

#include "engine/dtype.h"
#include "engine/kernel.h"

template <class C> struct Two {
  C first, second;
};

// A row that stays in memory.
template <class T> struct MemoryRow {
  const T* row;
  HD Compute<T> operator[](int64_t j) const { return Compute<T>(row[j]); }
};

// Reading and writing for the teams that work on memory, made of their `each`.
template <class Team> struct OnMemory {
  template <class T> HD MemoryRow<T> read(const T* row, int64_t) const { return {row}; }
  template <class T, class F> HD MemoryRow<T> write(T* row, int64_t n, F&& f) const {
    team().each(n, [&](int64_t j) { row[j] = T(Compute<T>(f(j))); });
    return {row};
  }
  template <class T, class F> HD void update(T* row, int64_t n, bool add, F&& f) const {
    team().each(n, [&](int64_t j) {
      const Compute<T> old = row[j];
      row[j] = T((add ? old : Compute<T>(0)) + f(j));
    });
  }
  template <class T, class F> HD void update(T* a, bool add_a, T* b, bool add_b, int64_t n, F&& f) const {
    team().each(n, [&](int64_t j) {
      const Two<Compute<T>> value = f(j);
      const Compute<T> old_a = a[j];
      a[j] = T((add_a ? old_a : Compute<T>(0)) + value.first);
      const Compute<T> old_b = b[j];
      b[j] = T((add_b ? old_b : Compute<T>(0)) + value.second);
    });
  }

 private:
  HD const Team& team() const { return static_cast<const Team&>(*this); }
};

struct CpuTeam : OnMemory<CpuTeam> {
  template <class F> void each(int64_t n, F&& f) const {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) f(i);
  }
  template <class C, class F> C sum(int64_t n, F&& f) const {
    C s = 0;
#pragma omp simd reduction(+ : s)
    for (int64_t i = 0; i < n; i++) s += f(i);
    return s;
  }
  template <class C, class F> C max(int64_t n, F&& f) const {
    C m = -std::numeric_limits<C>::infinity();
#pragma omp simd reduction(max : m)
    for (int64_t i = 0; i < n; i++) m = f(i) > m ? f(i) : m;
    return m;
  }
  bool leads() const { return true; }
};

struct WarpTeam : OnMemory<WarpTeam> {
  template <class F> DEVICE void each(int64_t n, F&& f) const {
    for (int64_t i = lane_id(); i < n; i += 32) f(i);
  }
  template <class C, class F> DEVICE C sum(int64_t n, F&& f) const {
    C s = 0;
    for (int64_t i = lane_id(); i < n; i += 32) s += f(i);
    return warp_sum(s);
  }
  template <class C, class F> DEVICE C max(int64_t n, F&& f) const {
    C m = -std::numeric_limits<C>::infinity();
    for (int64_t i = lane_id(); i < n; i += 32) m = f(i) > m ? f(i) : m;
    return warp_max(m);
  }
  DEVICE bool leads() const { return lane_id() == 0; }
};

// n numbers of type T that lie together: n sizeof(T) is a multiple of 16.
template <class T, int n> struct Pack {
  static constexpr int loads = int(n * sizeof(T) / 16);
  static_assert(n * sizeof(T) % 16 == 0);
  Bytes16 words[loads] = {};

  DEVICE void load(const T* from) {
    UNROLL
    for (int i = 0; i < loads; i++) words[i] = load16(from + i * (n / loads));
  }
  DEVICE void store(T* to) const {
    UNROLL
    for (int i = 0; i < loads; i++) store16(to + i * (n / loads), words[i]);
  }
  DEVICE Compute<T> operator[](int i) const {
    T value;
    memcpy(&value, reinterpret_cast<const char*>(words) + i * sizeof(T), sizeof(T));
    return Compute<T>(value);
  }
  DEVICE void set(const Compute<T> (&values)[n]) {
    UNROLL
    for (int i = 0; i < n; i++) {
      const T value = T(values[i]);
      memcpy(reinterpret_cast<char*>(words) + i * sizeof(T), &value, sizeof(T));
    }
  }
};
#ifdef __CUDACC__
template <> DEVICE void Pack<bf16, 8>::set(const float (&values)[8]) {   // two numbers an instruction
  UNROLL
  for (int i = 0; i < 4; i++) asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(words[0].word[i]) : "f"(values[2 * i + 1]), "f"(values[2 * i]));
}
#endif

template <int n, class T> DEVICE Pack<T, n> load_pack(const T* from) {
  Pack<T, n> pack;
  pack.load(from);
  return pack;
}

// A place in a row of packs: its numbers are constants once the loops are unrolled, so that they may name registers.
struct Place {
  int pack, element;
  int64_t column;
  HD operator int64_t() const { return column; }
};

template <class T, int width, int packs> struct RegisterRow {
  Pack<T, width> pack[packs];
  DEVICE Compute<T> operator[](const Place& j) const { return pack[j.pack][j.element]; }
};

// `lanes` neighbouring lanes of a warp (a power of two) share the columns [first, end): each lane has up to `packs` packs of `width`
// numbers, `lanes` packs apart. end is a multiple of width; an idle team has none.
template <int width, int packs> struct RegisterTeam {
  int lanes;
  int64_t first, end;

  DEVICE int lane() const { return int(lane_id()) & (lanes - 1); }
  DEVICE int64_t column(int pack) const { return first + int64_t(lane() + pack * lanes) * width; }
  DEVICE bool has(int pack) const { return column(pack) < end; }
  DEVICE bool leads() const { return lane() == 0 && first < end; }
  DEVICE unsigned mask() const { return (lanes == 32 ? ~0u : (1u << lanes) - 1) << (lane_id() & ~(lanes - 1)); }

  template <class F> DEVICE void each(int64_t, F&& f) const {
    UNROLL
    for (int p = 0; p < packs; p++)
      if (has(p)) {
        UNROLL
        for (int e = 0; e < width; e++) f(Place{p, e, column(p) + e});
      }
  }
  template <class C, class F> DEVICE C sum(int64_t n, F&& f) const {
    C s = 0;
    each(n, [&](const Place& j) { s += f(j); });
    for (int by = lanes / 2; by > 0; by /= 2) s += __shfl_xor_sync(mask(), s, by);
    return s;
  }
  template <class C, class F> DEVICE C max(int64_t n, F&& f) const {
    C m = -std::numeric_limits<C>::infinity();
    each(n, [&](const Place& j) {
      const C v = f(j);
      m = v > m ? v : m;
    });
    for (int by = lanes / 2; by > 0; by /= 2) {
      const C other = __shfl_xor_sync(mask(), m, by);
      m = other > m ? other : m;
    }
    return m;
  }
  template <class T> DEVICE RegisterRow<T, width, packs> read(const T* row, int64_t) const {
    RegisterRow<T, width, packs> out;
    UNROLL
    for (int p = 0; p < packs; p++)
      if (has(p)) out.pack[p].load(row + column(p));
    return out;
  }
  template <class T, class F> DEVICE RegisterRow<T, width, packs> write(T* row, int64_t, F&& f) const {
    RegisterRow<T, width, packs> out;
    UNROLL
    for (int p = 0; p < packs; p++)
      if (has(p)) {
        Compute<T> values[width];
        UNROLL
        for (int e = 0; e < width; e++) values[e] = f(Place{p, e, column(p) + e});
        out.pack[p].set(values);
        out.pack[p].store(row + column(p));
      }
    return out;
  }
  template <class T, class F> DEVICE void update(T* row, int64_t, bool add, F&& f) const {
    UNROLL
    for (int p = 0; p < packs; p++)
      if (has(p)) {
        Compute<T> values[width];
        UNROLL
        for (int e = 0; e < width; e++) values[e] = f(Place{p, e, column(p) + e});
        put(row + column(p), add, values);
      }
  }
  template <class T, class F> DEVICE void update(T* a, bool add_a, T* b, bool add_b, int64_t, F&& f) const {
    UNROLL
    for (int p = 0; p < packs; p++)
      if (has(p)) {
        Compute<T> to_a[width], to_b[width];
        UNROLL
        for (int e = 0; e < width; e++) {
          const Two<Compute<T>> value = f(Place{p, e, column(p) + e});
          to_a[e] = value.first;
          to_b[e] = value.second;
        }
        put(a + column(p), add_a, to_a);
        put(b + column(p), add_b, to_b);
      }
  }

 private:
  template <class T> static DEVICE void put(T* to, bool add, Compute<T> (&values)[width]) {
    Pack<T, width> pack;
    if (add) {
      pack.load(to);
      UNROLL
      for (int e = 0; e < width; e++) values[e] += pack[e];
    }
    pack.set(values);
    pack.store(to);
  }
};
