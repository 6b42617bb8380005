// window_attention_mma.h: the tensor-core kernels of window_attention: bf16, 32 or 64 channels a head, any number of tokens that fits. A
// block owns one head and walks over a chunk of windows; a window's rows lie in shared memory as they came, 16-byte pieces turned against
// bank conflicts. A warp takes 16 queries (or, in backward, then 16 keys) at a time and goes over the other tokens in blocks of 32, with
// logits in registers only. Rows are never normalised in place: what normalises them multiplies the logits, in f32.
#pragma once
#include "engine/ops/window_attention_tiles.h"

namespace window_attention_mma {

constexpr int columns_a_block = 32;   // tokens that meet a warp's 16 in one go: 4 product fragments

// Where a lane's numbers stand in product fragments: line h (0, 1) of the warp's 16, column e (0, 1) of fragment t.
DEVICE int line_of(int h) { return int(lane_id()) / 4 + 8 * h; }
DEVICE int column_of(int t, int e) { return 8 * t + 2 * (int(lane_id()) % 4) + e; }

// product = x y^T for 16 rows of x from `line` on, and 32 rows of y from `first` on, or the first 16 of them.
template <int dim>
DEVICE void multiply(const Tile<dim>& x, int line, const Tile<dim>& y, int first, bool both, ProductFragment (&product)[4]) {
  const int lane = int(lane_id()), row = first + lane / 16 * 8 + lane % 8, half = lane / 8 % 2;
  UNROLL for (int t = 0; t < 4; t++) product[t] = {};
  UNROLL for (int s = 0; s < dim / 16; s++) {
    LeftFragment left;
    load_matrices<false>(left.word, x.piece(line + lane % 16, 2 * s + lane / 16));
    UNROLL for (int t = 0; t < 4; t += 2) {
      if (t == 2 && !both) break;
      uint32_t word[4];
      load_matrices<false>(word, y.piece(row + 8 * t, 2 * s + half));
      mma(product[t], left, {word[0], word[1]});
      mma(product[t + 1], left, {word[2], word[3]});
    }
  }
}

// sum += w y for the same rows of y; the weights w are rounded to bf16.
template <int dim>
DEVICE void add_product(const ProductFragment (&w)[4], const Tile<dim>& y, int first, bool both, ProductFragment (&sum)[dim / 8]) {
  const int row = first + int(lane_id()) % 16, half = int(lane_id()) / 16;
  UNROLL for (int t = 0; t < 4; t += 2) {
    if (t == 2 && !both) break;
    const float *low = w[t].value, *high = w[t + 1].value;
    const LeftFragment left = {pack(low[0], low[1]), pack(low[2], low[3]), pack(high[0], high[1]), pack(high[2], high[3])};
    UNROLL for (int c = 0; c < dim / 16; c++) {
      uint32_t word[4];
      load_matrices<true>(word, y.piece(row + 8 * t, 2 * c + half));
      mma(sum[2 * c], left, {word[0], word[1]});
      mma(sum[2 * c + 1], left, {word[2], word[3]});
    }
  }
}

// What logits need besides the products. Lines are queries and columns keys, or the other way round.
template <bool lines_are_keys> struct LogitTerms {
  const Token *lines, *columns;
  const float* bias;   // or null
  int centre;          // of the table: the place of a token's bias to itself
  bool masked, causal;

  // Products of 16 tokens from `line` on and 32 from `first` on become logits, in bits.
  DEVICE void operator()(int line, int first, ProductFragment (&s)[4]) const {
    const Token mine[2] = {lines[line + line_of(0)], lines[line + line_of(1)]};
    UNROLL for (int t = 0; t < 4; t++)
      UNROLL for (int e = 0; e < 2; e++) {
        const int column = first + column_of(t, e);
        const Token other = columns[column];
        UNROLL for (int h = 0; h < 2; h++) {
          float& x = s[t].value[2 * h + e];
          const int apart = mine[h].place.offset - other.place.offset;
          x = x * (mine[h].factor * other.factor) + (mine[h].term + other.term);
          if (bias) x += bias[lines_are_keys ? centre - apart : centre + apart];
          if (masked && mine[h].place.region != other.place.region) x += float(masked_logit) * log2_e;
          if (causal && (lines_are_keys ? line + line_of(h) > column : column > line + line_of(h))) x = hidden;
        }
      }
  }
};

// What a warp keeps of its 16 queries while it goes over the keys: the largest logit, sums of e = 2^(logit - top) and of e (logit - top).
// Sums are of the lane's own columns, the top is of the whole row.
struct RunningSoftmax {
  float top[2] = {hidden, hidden}, sum[2] = {}, weighted[2] = {};

  // Logits become e; `out` is brought to the new top.
  template <int fragments> DEVICE void operator()(ProductFragment (&s)[4], ProductFragment (&out)[fragments]) {
    UNROLL for (int h = 0; h < 2; h++) {
      float high = top[h];
      UNROLL for (int t = 0; t < 4; t++)
        UNROLL for (int e = 0; e < 2; e++) high = s[t].value[2 * h + e] > high ? s[t].value[2 * h + e] : high;
      high = row_max(high);
      const float down = top[h] - high, shrink = exp2_approx(down);
      top[h] = high;
      weighted[h] = shrink * (weighted[h] + sum[h] * down);
      sum[h] *= shrink;
      UNROLL for (int f = 0; f < fragments; f++)
        UNROLL for (int e = 0; e < 2; e++) out[f].value[2 * h + e] *= shrink;
      UNROLL for (int t = 0; t < 4; t++)
        UNROLL for (int e = 0; e < 2; e++) {
          float& x = s[t].value[2 * h + e];
          const float below = x - high;
          x = exp2_approx(below);
          sum[h] += x;
          weighted[h] += x * below;
        }
    }
  }
};

// Writes factor times a row of fragments, on top of what is there if `add`. All lanes of the warp; those of rows that are `there` write.
template <int dim>
DEVICE void store_row(const ProductFragment (&x)[dim / 8], int h, float factor, bool there, bf16* to, bool add) {
  const int c = int(lane_id()) % 4;
  UNROLL for (int group = 0; group < dim / 32; group++) {
    bf16* mine = to + 32 * group + 8 * c;
    Piece old = {};
    if (add && there) old = load_piece(mine);
    if (add) row_transpose(old.word);
    uint32_t word[4];
    UNROLL for (int j = 0; j < 4; j++) {
      const float* value = x[4 * group + j].value + 2 * h;
      word[j] = pack(factor * value[0] + low_half(old.word[j]), factor * value[1] + high_half(old.word[j]));
    }
    row_transpose(word);
    if (there) store_piece(mine, word);
  }
}

// Adds factor times LePE's taps over the rows of x to line h of the fragments of `row`: of the tokens that they see, or, on the way `back`, of
// those whose taps see the row.
template <int dim, bool backward>
DEVICE void add_taps(const AttentionShape& a, const WindowMemory<dim, backward>& m, const Tile<dim>& x, int row, int h, bool back, float factor,
                     ProductFragment (&sum)[dim / 8]) {
  const int yx = m.yx[row];
  a.each_tap(yx >> 16, yx & 0xffff, [&](int t, int to) {
    const float* taps = m.lepe + (back ? lepe_taps - 1 - t : t) * dim;
    UNROLL for (int f = 0; f < dim / 8; f++) {
      const int c = column_of(f, 0);
      const uint32_t word = x.pair(row + to, c);
      sum[f].value[2 * h] += factor * taps[c] * low_half(word);
      sum[f].value[2 * h + 1] += factor * taps[c + 1] * high_half(word);
    }
  });
}

// The block's share of the windows: begin .. end - 1.
struct Chunk {
  int64_t begin, end;
  DEVICE explicit Chunk(int64_t windows)
      : begin(windows * blockIdx.y / gridDim.y), end(windows * (blockIdx.y + 1) / gridDim.y) {}
};

// Takes one warp's 16 queries over all the keys; returns the entropy of those that this lane stands for.
template <int dim>
DEVICE float forward_queries(const AttentionShape& a, const LogitTerms<false>& terms, int first_query, const WindowMemory<dim, false>& m,
                             float* log_sum, bf16* out) {
  const int n = a.tokens(), end = a.causal ? std::min(n, first_query + 16) : n;
  ProductFragment sum[dim / 8] = {};
  RunningSoftmax softmax;
  for (int first = 0; first < end; first += columns_a_block) {
    const bool both = first + 16 < end;
    ProductFragment s[4];
    multiply(m.q, first_query, m.k, first, both, s);
    terms(first_query, first, s);
    softmax(s, sum);
    UNROLL for (int t = 0; t < 4; t++)
      UNROLL for (int i = 0; i < 4; i++) s[t].value[i] *= m.key[first + column_of(t, i % 2)].other;
    add_product(s, m.v, first, both, sum);
  }
  float entropy = 0;
  UNROLL for (int h = 0; h < 2; h++) {
    const int i = first_query + line_of(h);
    const bool there = i < n;
    const float total = row_sum(softmax.sum[h]), log = std::log2(total), weighted = row_sum(softmax.weighted[h]);
    if (there && lane_id() % 4 == 0) {
      entropy += ln_2 * (log - weighted / total);
      log_sum[i] = ln_2 * (softmax.top[h] + log);
    }
    if (m.lepe) {
      UNROLL for (int f = 0; f < dim / 8; f++)
        UNROLL for (int e = 0; e < 2; e++) sum[f].value[2 * h + e] += total * m.lepe[lepe_taps * dim + column_of(f, e)];
      add_taps(a, m, m.v, i, h, false, total, sum);
    }
    store_row<dim>(sum, h, 1 / total, there, out + int64_t(m.where[i]) * a.channels, false);
  }
  return entropy;
}

// Grid: heads, chunks of windows. One barrier after a window is loaded, one before the next one is.
template <int dim> KERNEL __launch_bounds__(256, 2) window_attention_mma_forward_kernel(AttentionForward<bf16> call) {
  __shared__ float entropies[8];
  const AttentionShape& a = call.shape;
  const int n = a.tokens(), head = blockIdx.x, channel = head * dim, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const WindowMemory<dim, false> m(n, a.lepe, dynamic_shared<unsigned char>());
  prepare_block(a, call.bias ? call.bias + head * a.relative_positions() : nullptr, call.lepe, channel, m);
  LogitTerms<false> terms{m.query, m.key, call.bias ? m.bias : nullptr, a.relative_positions() / 2, false, a.causal};
  const Chunk chunk(a.windows());
  float entropy = 0;
  for (int64_t window = chunk.begin; window < chunk.end; window++) {
    const WindowPlace place(a, unsigned(window));
    terms.masked = place.masked;
    load_window<dim, false>(a, place, call.q + channel, call.k + channel, call.v + channel, {}, m);
    for (int first = 16 * warp; first < n; first += 16 * warps)
      entropy += forward_queries(a, terms, first, m, call.log_sum + (window * a.heads + head) * n, call.out + channel);
    __syncthreads();
  }
  entropy = warp_sum(entropy);
  if (lane_id() == 0) entropies[warp] = entropy;
  __syncthreads();
  if (threadIdx.x != 0) return;
  entropy = 0;
  for (int w = 0; w < warps; w++) entropy += entropies[w];
  call.entropy[blockIdx.y * a.heads + head] = entropy;
}

}  // namespace window_attention_mma
