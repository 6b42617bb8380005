// depthwise_conv_cpu.h: depthwise convolution on the CPU, 16 channels of an image at a time in a tile that fits L2.
//
// A tile holds a plane for each vector of channels: [vectors, H, pad + W + pad] vectors, zero in the margins left and
// right. Rows above and below the image are skipped instead, which on 7 x 7 maps saves a quarter of the work.
#pragma once
#include <omp.h>

#include <algorithm>

#include "engine/ops/depthwise_conv.h"
#include "engine/ops/drop_path.h"
#include "engine/tensor.h"

namespace depthwise {

#ifdef __AVX512F__
constexpr int vector_bytes = 64;
#else
constexpr int vector_bytes = 32;
#endif

template <class C> struct VectorOf {
  typedef C type __attribute__((vector_size(vector_bytes), may_alias));
  static constexpr int count = block * sizeof(C) / vector_bytes;   // vectors a block
};
template <class C> using Vector = typename VectorOf<C>::type;

// Where the numbers of one channel block lie in a tile, counted in vectors. W is rounded up to whole spans.
struct TileSizes {
  int64_t height, width, row, plane;
  explicit TileSizes(const Sizes& s)
      : height(s.height), width(s.spans(s.width) * span), row(width + 2 * s.pad()), plane(height * row) {}
};

// The scratch of one thread: two tiles and a row of outputs [width, block].
template <class C> struct Scratch {
  C *first, *second, *row;
  Scratch(const Sizes& s, C* memory) {
    const TileSizes t(s);
    first = memory;
    second = first + t.plane * block;
    row = second + t.plane * block;
    std::fill(first, row, C(0));   // the margins stay zero from here on
  }
  static int64_t size(const Sizes& s) {
    const TileSizes t(s);
    return (2 * t.plane + t.width) * block;
  }
};

// The 16 channels (or the `count` that are left) of one image.
struct Part {
  int64_t image, channel;
  int count;
};

// What the branch of an image is multiplied by: `keep` of the sample times the alpha of each channel.
template <class C> struct Factors {
  C keep;
  alignas(64) C of[block];
  // packed: the channels' own
  Factors(const Sizes& s, const Part& part, const C* packed, const DropFactor& drop) : keep(C(drop.of_sample(part.image))) {
    for (int c = 0; c < block; c++) of[c] = keep * packed[s.alpha_slot() * block + c];
  }
};

// Fills row h of a tile. Where `sums` [2, block] is not null, adds the numbers to the first and what the load gives for the branch to the second.
// Channels past the count are zero.
template <class C, class F>
void fill_row(const Sizes s, const TileSizes t, const Part part, int64_t h, const F load, const Factors<C>& factors, C* tile, C* sums) {
  using V = Vector<C>;
  constexpr int vectors = VectorOf<C>::count;
  const int64_t ahead = std::max<int64_t>(32, s.width) * s.channels;
  V* to = reinterpret_cast<V*>(tile) + h * t.row + s.pad();
  alignas(64) C total[block] = {}, branch[block] = {}, factor[block];
  std::copy_n(factors.of, block, factor);
  for (int64_t w = 0; w < s.width; w++) {
    const int64_t from = s.index(part.image, h, w, part.channel);
    load.fetch(from + ahead);
    alignas(64) C line[block] = {};
    if (part.count == block) {
      for (int c = 0; c < block; c++) line[c] = load(from + c, factor[c], branch[c]);
    } else {
      for (int c = 0; c < part.count; c++) line[c] = load(from + c, factor[c], branch[c]);
    }
    for (int v = 0; v < vectors; v++) to[v * t.plane + w] = reinterpret_cast<const V*>(line)[v];
    for (int c = 0; c < block; c++) total[c] += line[c];
  }
  if (!sums) return;
  for (int c = 0; c < block; c++) sums[c] += total[c];
  for (int c = 0; c < block; c++) sums[block + c] += factors.keep * branch[c];
}

template <class C, class F> void store_row(const Sizes s, const Part part, int64_t h, const C* row, const Factors<C>& factors, const F store) {
  alignas(64) C factor[block];
  std::copy_n(factors.of, block, factor);
  for (int64_t w = 0; w < s.width; w++) {
    const int64_t to = s.index(part.image, h, w, part.channel);
    const C* from = row + w * block;
    if (part.count == block) {
      alignas(64) C values[block];
      std::copy_n(from, block, values);
      store.put_block(to, values, factor);
    } else {
      for (int c = 0; c < part.count; c++) store(to + c, from[c], factor[c], store.before(to + c));
    }
  }
}

// One row of outputs for `n` vectors of channels:
//   out[w] = start + sum over i, j of weights[i, j] * tile[h + i - pad, w + j].
// `step` is the distance from one tap to the next: negative for the flipped kernel of the backward. A null start is 0.
template <int n, class V>
void convolve_row(const Sizes s, const TileSizes t, const V* tile, int64_t h, const V* weights, int step,
                  const V* start, V* out, int out_step) {
  const int kernel = s.kernel, pad = s.pad();
  const int first = int(std::max<int64_t>(0, pad - h)), last = int(std::min<int64_t>(kernel, s.height + pad - h));
  for (int64_t w = 0; w < t.width; w += span) {
    V sum[n][span];
    for (int v = 0; v < n; v++)
      for (int k = 0; k < span; k++) sum[v][k] = start ? start[v] : V{};
    for (int i = first; i < last; i++) {
      const V* x = tile + (h + i - pad) * t.row + w;
      const V* weight = weights + i * kernel * step;
      for (int j = 0; j < kernel; j++, x++, weight += step) {
        asm volatile("" ::: "memory");   // else GCC carries x from tap to tap, in moves that cost more than loads
#pragma GCC unroll 4
        for (int v = 0; v < n; v++) {
          const V factor = weight[v];
#pragma GCC unroll 8
          for (int k = 0; k < span; k++) sum[v][k] += factor * x[v * t.plane + k];
        }
      }
    }
    for (int v = 0; v < n; v++)
      for (int k = 0; k < span; k++) out[(w + k) * out_step + v] = sum[v][k];
  }
}

// Convolves a part with its packed weights, filling the tile just ahead, and hands each output to store(index, value).
template <class C, class L, class S>
void convolve_part(const Sizes s, const Part part, const L& load, C* sums, const C* packed, const Factors<C>& factors, bool flip, const S& store,
                   const Scratch<C>& scratch) {
  using V = Vector<C>;
  constexpr int vectors = VectorOf<C>::count, together = vectors % 2 == 0 ? 2 : 1;   // sums that fill 16 registers
  const TileSizes t(s);
  const V* weights = reinterpret_cast<const V*>(packed);
  int64_t filled = 0;
  for (int64_t h = 0; h < s.height; h++) {
    const int64_t needed = std::min(s.height, h + s.pad() + 1);
    for (; filled < needed; filled++) fill_row(s, t, part, filled, load, factors, scratch.first, sums);
    for (int64_t w = 0; w < s.width; w++) store.fetch(s.index(part.image, h, w, part.channel));
    for (int v = 0; v < vectors; v += together) {
      const V* plane = reinterpret_cast<const V*>(scratch.first) + v * t.plane;
      V* out = reinterpret_cast<V*>(scratch.row) + v;
      const V* first = weights + v + (flip ? (s.taps() - 1) * vectors : 0);
      const V* start = flip ? nullptr : weights + v + s.bias_slot() * vectors;
      convolve_row<together>(s, t, plane, h, first, flip ? -vectors : vectors, start, out, vectors);
    }
    store_row(s, part, h, scratch.row, factors, store);
  }
}

// sums[j] += sum over h, w of dy[h, w] * x[h + i - pad, w + j - pad] for `taps` neighbouring j from `j` on.
template <int taps, class V>
void weight_gradient_row(const Sizes s, const TileSizes t, const V* x_plane, const V* dy_plane, int i, int j, V* sums,
                         int sums_step) {
  const int pad = s.pad();
  const int64_t first = std::max(0, pad - i), last = std::min(s.height, s.height + pad - i), width = s.width;
  V sum[taps] = {};
  for (int64_t h = first; h < last; h++) {
    const V* dy = dy_plane + h * t.row + pad;
    const V* x = x_plane + (h + i - pad) * t.row + j;
    for (int64_t w = 0; w < width; w++) {
      const V factor = dy[w];
#pragma GCC unroll 8
      for (int k = 0; k < taps; k++) sum[k] += factor * x[w + k];
    }
  }
  for (int k = 0; k < taps; k++) sums[k * sums_step] += sum[k];
}

template <class C> void weight_gradient(const Sizes s, const C* x, const C* dy, C* packed) {
  using V = Vector<C>;
  constexpr int vectors = VectorOf<C>::count;
  const TileSizes t(s);
  const auto rows = [&]<int taps>() {
    for (int v = 0; v < vectors; v++) {
      const V* x_plane = reinterpret_cast<const V*>(x) + v * t.plane;
      const V* dy_plane = reinterpret_cast<const V*>(dy) + v * t.plane;
      for (int i = 0; i < s.kernel; i++)
        for (int j = 0; j < s.kernel; j += taps) {
          V* sums = reinterpret_cast<V*>(packed) + (i * s.kernel + j) * vectors + v;
          weight_gradient_row<taps>(s, t, x_plane, dy_plane, i, j, sums, vectors);
        }
    }
  };
  // As many taps at a time as registers hold and the kernel is a multiple of.
  if (s.kernel % 7 == 0) return rows.template operator()<7>();
  if (s.kernel % 3 == 0) return rows.template operator()<3>();
  rows.template operator()<1>();
}

// Runs task(n, part, scratch) for each n < outer and channel block, on all threads. The part is of image n.
template <class C, class F> void for_parts(const Sizes& s, int64_t outer, const F& task) {
  const int64_t a_thread = Scratch<C>::size(s);
  const Tensor memory = Tensor::empty({omp_get_max_threads(), a_thread}, dtype_of<C>);
  C* begin = memory.data<C>();
#pragma omp parallel if (s.macs() > 100000)
  {
    const Scratch<C> scratch(s, begin + omp_get_thread_num() * a_thread);
#pragma omp for collapse(2) schedule(dynamic)
    for (int64_t n = 0; n < outer; n++)
      for (int64_t b = 0; b < s.blocks(); b++)
        task(n, Part{n, b * block, int(std::min<int64_t>(block, s.channels - b * block))}, scratch);
  }
}

template <class C, class L, class S>
void convolve_cpu(const Sizes& s, const L& load, const C* packed, const DropFactor& drop, const S& store) {
  for_parts<C>(s, s.batch, [&](int64_t, const Part& part, const Scratch<C>& scratch) {
    const C* own = packed + s.packed(part.channel, 0);
    convolve_part<C>(s, part, load, nullptr, own, Factors<C>(s, part, own, drop), false, store, scratch);
  });
}

// Groups of images that sum their weight gradients apart: enough tasks for many threads, whatever their number is.
inline int64_t gradient_groups_cpu(const Sizes& s) { return std::clamp<int64_t>(64 / s.blocks(), 1, s.batch); }

// One pass over the tiles: dx through store_dx, and the sums of each group of images in partial [groups, packed]. store_dx is called only if dx
// is wanted, x is read only if sums are.
template <class C, class L, class X, class S>
void backward_cpu(const Sizes& s, Wanted wanted, const L& load_dy, const X& load_x, const C* packed, const DropFactor& drop, const S& store_dx,
                  C* partial) {
  const int64_t groups = gradient_groups_cpu(s), size = s.packed_size();
  const TileSizes t(s);
  for_parts<C>(s, groups, [&](int64_t group, Part part, const Scratch<C>& scratch) {
    const int64_t own = s.packed(part.channel, 0), end = (group + 1) * s.batch / groups;
    C* sums = partial + group * size + own;
    C* other_sums = sums + s.bias_slot() * block;   // and of alpha behind it
    std::fill_n(sums, s.slots() * block, C(0));
    for (part.image = group * s.batch / groups; part.image < end; part.image++) {
      const Factors<C> factors(s, part, packed + own, drop);
      if (wanted.dx)
        convolve_part<C>(s, part, load_dy, other_sums, packed + own, factors, true, store_dx, scratch);
      else
        for (int64_t h = 0; h < s.height; h++) fill_row(s, t, part, h, load_dy, factors, scratch.first, other_sums);
      if (!wanted.sums) continue;
      for (int64_t h = 0; h < s.height; h++) fill_row<C>(s, t, part, h, load_x, factors, scratch.second, nullptr);
      weight_gradient(s, scratch.second, scratch.first, sums);
    }
  });
}

}  // namespace depthwise
