// window_attention_mma_backward.h: the tensor-core kernel of window_attention's backward. Logits are made again from the saved log sums:
// once by queries, which gives dq and the bias its part, and once by keys, which gives dk and dv. So nothing but the bias' sums passes
// from warp to warp, and every sum has its order.
#pragma once
#include "engine/ops/window_attention_mma.h"

namespace window_attention_mma {

// Each warp's own sums of the bias gradient, and where it turns fragments into rows.
struct BiasGradient {
  static constexpr int stride = 40;   // so that the pairs which a half warp writes lie in different banks
  float *sums, *rows;                 // [positions], [16, stride]; null where none is wanted

  HD static size_t bytes(int positions) { return sizeof(float) * (positions + 16 * stride); }
  DEVICE BiasGradient(float* memory, int positions, bool wanted) : sums(nullptr), rows(nullptr) {
    if (!wanted) return;
    sums = memory + threadIdx.x / 32 * positions;
    rows = memory + blockDim.x / 32 * positions + threadIdx.x / 32 * 16 * stride;
    for (int e = lane_id(); e < positions; e += 32) sums[e] = 0;
  }
  // Adds the gradients of 16 queries' logits to 32 keys, one query after the other: no two keys of one have the same bias.
  template <int dim>
  DEVICE void add(int n, int centre, const WindowMemory<dim, true>& m, int first_query, int first_key, const ProductFragment (&ds)[4]) const {
    const int lane = int(lane_id()), key = first_key + lane;
    UNROLL for (int t = 0; t < 4; t++)
      UNROLL for (int i = 0; i < 4; i++) rows[line_of(i / 2) * stride + column_of(t, i % 2)] = ds[t].value[i];
    __syncwarp();
    float* of_key = sums + centre - m.key[key].place.offset;
    for (int r = 0; r < 16 && first_query + r < n; r++) {
      if (key < n) of_key[m.query[first_query + r].place.offset] += rows[r * stride + lane];
      __syncwarp();
    }
  }
};

// Sums of LePE's gradients. Two channels belong to a thread, dim / 2 threads to a token; each thread sums its own tokens.
template <int dim> struct LepeGradient {
  static constexpr int of_token = dim / 2;   // threads
  float* sums;                               // [groups of threads, 10, dim]; null where none is wanted

  HD static size_t bytes() { return sizeof(float) * lepe_sums * 64; }   // of a warp, whatever its tokens
  DEVICE int group() const { return threadIdx.x / of_token; }
  DEVICE float* mine() const { return sums + group() * lepe_sums * dim + 2 * (threadIdx.x % of_token); }
  DEVICE LepeGradient(float* memory, bool wanted) : sums(wanted ? memory : nullptr) {
    for (int t = 0; sums && t < lepe_sums; t++) mine()[t * dim] = mine()[t * dim + 1] = 0;
  }
  DEVICE void add(const AttentionShape& a, const WindowMemory<dim, true>& m) const {
    const int groups = blockDim.x / of_token, c = 2 * (threadIdx.x % of_token);
    float sum[lepe_sums][2] = {};
    for (int i = group(); i < a.tokens(); i += groups) {
      const int yx = m.yx[i];
      const uint32_t word = m.dout.pair(i, c);
      const float low = low_half(word), high = high_half(word);
      a.each_tap(yx >> 16, yx & 0xffff, [&](int t, int to) {
        const uint32_t value = m.v.pair(i + to, c);
        sum[t][0] += low * low_half(value);
        sum[t][1] += high * high_half(value);
      });
      sum[lepe_taps][0] += low;
      sum[lepe_taps][1] += high;
    }
    UNROLL for (int t = 0; t < lepe_sums; t++)
      UNROLL for (int e = 0; e < 2; e++) mine()[t * dim + e] += sum[t][e];
  }
};

// Adds the weights of a product to the sums of their rows, rounded as the product rounds them. In l2, where a token's gradient is the
// sum of ds (y - x), the rounding of a ds then counts by the distance of x and y only, and of a token to itself not at all.
DEVICE void add_pulls(const ProductFragment (&w)[4], float (&pull)[2]) {
  UNROLL for (int t = 0; t < 4; t++)
    UNROLL for (int h = 0; h < 2; h++) {
      const uint32_t word = pack(w[t].value[2 * h], w[t].value[2 * h + 1]);
      pull[h] += low_half(word) + high_half(word);
    }
}

// dx = factor (g - pull x - along inverse^2 x (x g)) + further: the gradient g of the 16 rows from `first` on goes back through what
// normalised them, with RowScale's inverse and along; only l2 pulls. further(row, h, 1 / factor, g) adds to g's line h.
template <int dim, class F>
DEVICE void store_gradient(const AttentionShape& a, Similarity similarity, const Tile<dim>& x, int first, const int* where,
                           const float (&factor)[2], const float (&pull)[2], ProductFragment (&g)[dim / 8], const GradientTo<bf16>& to,
                           int channel, F&& further) {
  const bool pulled = similarity == Similarity::l2;
  UNROLL for (int h = 0; h < 2; h++) {
    const int row = first + line_of(h);
    if (normalises(similarity) || pulled) {
      float square = 0, along = 0;
      UNROLL for (int t = 0; t < dim / 8; t++) {
        const uint32_t word = x.pair(row, column_of(t, 0));
        const float low = low_half(word), high = high_half(word);
        square += low * low + high * high;
        along += low * g[t].value[2 * h] + high * g[t].value[2 * h + 1];
      }
      const RowScale<float> scale = row_scale(similarity, row_sum(square), a.eps);
      const float share = pulled ? row_sum(pull[h]) : scale.along * scale.inverse * scale.inverse * row_sum(along);
      UNROLL for (int t = 0; t < dim / 8; t++) {
        const uint32_t word = x.pair(row, column_of(t, 0));
        g[t].value[2 * h] -= share * low_half(word);
        g[t].value[2 * h + 1] -= share * high_half(word);
      }
    }
    further(row, h, 1 / factor[h], g);
    store_row<dim>(g, h, factor[h], row < a.tokens(), to.to + channel + int64_t(where[row]) * a.stride, to.add);
  }
}

// The sum over the keys of p dp of 16 queries, which without LePE is dout out. With it out is rounded as the sum of two, and the difference that
// would be left of it is not exact enough.
template <int dim>
DEVICE void sum_pairs(const AttentionShape& a, const LogitTerms<false>& terms, int first_query, const WindowMemory<dim, true>& m) {
  const int n = a.tokens(), end = a.causal ? std::min(n, first_query + 16) : n;
  float sum[2] = {};
  for (int first = 0; first < end; first += columns_a_block) {
    const bool both = first + 16 < end;
    ProductFragment s[4], dp[4];
    multiply(m.q, first_query, m.k, first, both, s);
    multiply(m.dout, first_query, m.v, first, both, dp);
    terms(first_query, first, s);
    UNROLL for (int t = 0; t < 4; t++)
      UNROLL for (int i = 0; i < 4; i++) sum[i / 2] += exp2_approx(s[t].value[i]) * dp[t].value[i] * m.key[first + column_of(t, i % 2)].other;
  }
  UNROLL for (int h = 0; h < 2; h++) {
    const float total = row_sum(sum[h]);
    if (lane_id() % 4 == 0) m.query[first_query + line_of(h)].other = total;
  }
}

struct Nothing {
  template <class G> DEVICE void operator()(int, int, float, G&&) const {}
};

// dq of 16 queries, and their part of the bias' gradient.
template <int dim>
DEVICE void backward_queries(const AttentionBackward<bf16>& call, const LogitTerms<false>& terms, int first_query,
                             const WindowMemory<dim, true>& m, const BiasGradient& dbias) {
  const AttentionShape& a = call.shape;
  const int n = a.tokens(), end = a.causal ? std::min(n, first_query + 16) : n;
  float pull[2] = {};
  ProductFragment dq[dim / 8] = {};
  for (int first = 0; first < end; first += columns_a_block) {
    const bool both = first + 16 < end;
    ProductFragment s[4], ds[4];
    multiply(m.q, first_query, m.k, first, both, s);
    multiply(m.dout, first_query, m.v, first, both, ds);
    terms(first_query, first, s);
    UNROLL for (int t = 0; t < 4; t++)
      UNROLL for (int i = 0; i < 4; i++) {
        const Token& key = m.key[first + column_of(t, i % 2)];
        float& x = ds[t].value[i];
        x = exp2_approx(s[t].value[i]) * (x * key.other - m.query[first_query + line_of(i / 2)].other);
        s[t].value[i] = x * key.factor;
      }
    if (dbias.sums) dbias.add(n, terms.centre, m, first_query, first, ds);
    if (a.similarity == Similarity::l2) add_pulls(s, pull);
    if (call.dq.to) add_product(s, m.k, first, both, dq);
  }
  if (!call.dq.to) return;
  const Token &upper = m.query[first_query + line_of(0)], &lower = m.query[first_query + line_of(1)];
  const float factor[2] = {ln_2 * upper.factor, ln_2 * lower.factor};
  store_gradient<dim>(a, a.similarity, m.q, first_query, m.where, factor, pull, dq, call.dq, blockIdx.x * dim, Nothing{});
}

// dk and dv of 16 keys.
template <int dim>
DEVICE void backward_keys(const AttentionBackward<bf16>& call, const LogitTerms<true>& terms, int first_key, const WindowMemory<dim, true>& m) {
  const AttentionShape& a = call.shape;
  const int n = a.tokens();
  float pull[2] = {};
  ProductFragment dk[dim / 8] = {}, dv[dim / 8] = {};
  for (int first = a.causal ? first_key / columns_a_block * columns_a_block : 0; first < n; first += columns_a_block) {
    const bool both = first + 16 < n;
    ProductFragment p[4], ds[4];
    multiply(m.k, first_key, m.q, first, both, p);
    multiply(m.v, first_key, m.dout, first, both, ds);
    terms(first_key, first, p);
    UNROLL for (int t = 0; t < 4; t++)
      UNROLL for (int i = 0; i < 4; i++) {
        const Token& query = m.query[first + column_of(t, i % 2)];
        float &x = p[t].value[i], &y = ds[t].value[i];
        x = exp2_approx(x);
        y = x * (y * m.key[first_key + line_of(i / 2)].other - query.other) * query.factor;
      }
    if (a.similarity == Similarity::l2) add_pulls(ds, pull);
    add_product(p, m.dout, first, both, dv);
    add_product(ds, m.q, first, both, dk);
  }
  const Token &upper = m.key[first_key + line_of(0)], &lower = m.key[first_key + line_of(1)];
  const float factor[2] = {ln_2 * upper.factor, ln_2 * lower.factor}, value[2] = {upper.other, lower.other};
  const int channel = blockIdx.x * dim;
  if (call.dk.to) store_gradient<dim>(a, a.similarity, m.k, first_key, m.where, factor, pull, dk, call.dk, channel, Nothing{});
  if (call.dv.to)
    store_gradient<dim>(a, value_similarity(a.similarity), m.v, first_key, m.where, value, pull, dv, call.dv, channel,
                        [&](int row, int h, float factor, ProductFragment (&g)[dim / 8]) {
                          if (m.lepe) add_taps(a, m, m.dout, row, h, true, factor, g);
                        });
}

// Grid: heads, chunks of windows. The bounds allow what fits without spilling: 168 registers, so that three blocks of four warps share a
// multiprocessor, or with 64 channels 255, and two.
template <int dim> KERNEL __launch_bounds__(dim == 32 ? 384 : 256) window_attention_mma_backward_kernel(AttentionBackward<bf16> call) {
  const AttentionShape& a = call.shape;
  const int n = a.tokens(), head = blockIdx.x, channel = head * dim, positions = a.relative_positions();
  const int warp = threadIdx.x / 32, warps = blockDim.x / 32, table = call.bias ? positions : 0;
  unsigned char* memory = dynamic_shared<unsigned char>();
  const WindowMemory<dim, true> m(n, a.lepe, memory);
  float* all_sums = reinterpret_cast<float*>(memory + m.bytes(n, table, a.lepe));
  const BiasGradient dbias(all_sums, positions, call.dbias != nullptr);
  const LepeGradient<dim> dlepe(all_sums + (dbias.sums ? warps * BiasGradient::bytes(positions) / sizeof(float) : 0), call.dlepe != nullptr);
  prepare_block(a, call.bias ? call.bias + head * positions : nullptr, call.lepe, channel, m);
  const float* bias = call.bias ? m.bias : nullptr;
  LogitTerms<false> by_query{m.query, m.key, bias, positions / 2, false, a.causal};
  LogitTerms<true> by_key{m.key, m.query, bias, positions / 2, false, a.causal};
  const Chunk chunk(a.windows());
  for (int64_t window = chunk.begin; window < chunk.end; window++) {
    const WindowPlace place(a, unsigned(window));
    by_query.masked = by_key.masked = place.masked;
    load_window<dim, true>(a, place, call.q + channel, call.k + channel, call.v + channel,
                           {call.dout + channel, call.out ? call.out + channel : nullptr, call.log_sum + (window * a.heads + head) * n}, m);
    if (a.lepe) {
      for (int first = 16 * warp; first < n; first += 16 * warps) sum_pairs(a, by_query, first, m);
      if (dlepe.sums) dlepe.add(a, m);
      __syncthreads();
    }
    if (call.dq.to || dbias.sums)
      for (int first = 16 * warp; first < n; first += 16 * warps) backward_queries(call, by_query, first, m, dbias);
    if (call.dk.to || call.dv.to)
      for (int first = 16 * warp; first < n; first += 16 * warps) backward_keys(call, by_key, first, m);
    __syncthreads();
  }
  for (int e = threadIdx.x; dbias.sums && e < positions; e += blockDim.x) {
    float sum = 0;
    for (int w = 0; w < warps; w++) sum += all_sums[w * positions + e];
    call.dbias[(blockIdx.y * a.heads + head) * int64_t(positions) + e] = sum;
  }
  for (int e = threadIdx.x; dlepe.sums && e < lepe_sums * dim; e += blockDim.x) {
    float sum = 0;
    for (unsigned g = 0; g < blockDim.x / dlepe.of_token; g++) sum += dlepe.sums[g * lepe_sums * dim + e];
    call.lepe_sum(blockIdx.y, e / dim, head, e % dim) = sum;
  }
}

}  // namespace window_attention_mma
