// window_attention_tiles.h: what a block of the tensor-core kernels keeps of one window and head in shared memory, and how it gets there.
#pragma once
#include "engine/mma.h"
#include "engine/ops/window_attention.h"

namespace window_attention_mma {

constexpr float log2_e = 1.44269504f, ln_2 = 0.693147181f;
constexpr float hidden = -1e30f;   // the logit of what is not to be seen: its power is 0, and no sum of two is infinite

DEVICE float dot(const Piece& x, const Piece& y) {
  float sum = 0;
  for (int i = 0; i < 4; i++) sum += low_half(x.word[i]) * low_half(y.word[i]) + high_half(x.word[i]) * high_half(y.word[i]);
  return sum;
}

// Where a token stands: in the table of biases, of which key's offset is subtracted from query's, and in the regions that a shift makes.
struct Place { short offset, region; };

// A token as a query, or as a key. The logit of query i and key j, in bits, is (q_i k_j) query_i.factor key_j.factor + query_i.term +
// key_j.term + bias + mask: factors normalise and scale, terms hide what only fills up a tile, and hold l2's |k|^2 and, in backward, the
// log of the row's sum. One load gives it all.
struct alignas(16) Token {
  float factor, term;
  float other;   // of a query, in backward: the sum over the keys of p dp, which is dout out; of a key: the factor of its value
  Place place;
};

// Everything a block keeps. Tokens are filled up to whole steps of 16 in the tiles, to whole blocks of 32 in what belongs to each token.
HD int padded_tokens(int tokens, int to) { return (tokens + to - 1) / to * to; }

template <int dim, bool backward> struct WindowMemory {
  Tile<dim> q, k, v, dout;
  Token *query, *key;   // [tokens]
  int* where;           // row of the token in the map
  int* yx;              // its place in the window: 65536 y + x
  float* lepe;          // [10, dim]: a row each tap, then the bias; null without LePE
  float* bias;          // [positions], in bits

  HD static size_t bytes(int tokens, int positions, bool with_lepe) {
    return size_t(padded_tokens(tokens, 16)) * dim * sizeof(bf16) * (backward ? 4 : 3) +
           size_t(padded_tokens(tokens, 32)) * 2 * (sizeof(Token) + sizeof(int)) + sizeof(float) * (positions + (with_lepe ? lepe_sums * dim : 0));
  }
  DEVICE WindowMemory(int tokens, bool with_lepe, unsigned char* memory) {
    const int tile = padded_tokens(tokens, 16) * dim, n = padded_tokens(tokens, 32);
    bf16* rows = reinterpret_cast<bf16*>(memory);
    q.data = rows;
    k.data = rows + tile;
    v.data = rows + 2 * tile;
    dout.data = rows + 3 * tile;
    query = reinterpret_cast<Token*>(rows + (backward ? 4 : 3) * tile);
    key = query + n;
    where = reinterpret_cast<int*>(key + n);
    yx = where + n;
    bias = reinterpret_cast<float*>(yx + n);
    lepe = with_lepe ? bias : nullptr;
    if (with_lepe) bias += lepe_sums * dim;
  }
};

// A window's place in the map, found once a window because of its divisions.
struct WindowPlace {
  int first, top, left;   // row of the map's first token; first row and column in the rolled map
  bool masked;
  DEVICE WindowPlace(const AttentionShape& a, unsigned window) {
    const unsigned a_map = unsigned(a.windows_a_map()), columns = unsigned(a.columns()), in_map = window % a_map;
    first = int(window / a_map) * a.height * a.width;
    top = int(in_map / columns) * a.window_height;
    left = int(in_map % columns) * a.window_width;
    masked = a.shift > 0 && (top + a.window_height == a.height || left + a.window_width == a.width);
  }
  DEVICE int token(const AttentionShape& a, int y, int x) const {
    const int real_y = top + y + a.shift, real_x = left + x + a.shift;
    return first + (real_y < a.height ? real_y : real_y - a.height) * a.width + (real_x < a.width ? real_x : real_x - a.width);
  }
  DEVICE int region(const AttentionShape& a, int y, int x) const {
    return 3 * a.band(top + y, a.height, a.window_height) + a.band(left + x, a.width, a.window_width);
  }
};

// What does not change from window to window: the bias, LePE of the block's channels, where tokens stand, and what fills up.
template <int dim, bool backward>
DEVICE void prepare_block(const AttentionShape& a, const float* bias, const LepeTaps<float>& lepe, int channel, const WindowMemory<dim, backward>& m) {
  constexpr int pieces = dim / 8;
  const int n = a.tokens();
  const uint32_t zeros[4] = {};
  for (int e = n * pieces + threadIdx.x; e < padded_tokens(n, 16) * pieces; e += blockDim.x)
    for (const Tile<dim>& tile : {m.q, m.k, m.v, backward ? m.dout : m.v}) store_piece(tile.piece(e / pieces, e % pieces), zeros);
  for (int i = threadIdx.x; i < padded_tokens(n, 32); i += blockDim.x) {
    const int y = i / a.window_width, x = i % a.window_width;
    const bool fills = i >= n;
    m.yx[i] = y << 16 | x;
    m.query[i] = m.key[i] = {0, hidden, 0, {short(fills ? 0 : y * (2 * a.window_width - 1) + x), 0}};
    m.where[i] = 0;
  }
  for (int e = threadIdx.x; bias && e < a.relative_positions(); e += blockDim.x) m.bias[e] = log2_e * bias[e];
  for (int e = threadIdx.x; m.lepe && e < lepe_sums * dim; e += blockDim.x) {
    const int which = e / dim, c = channel + e % dim;
    m.lepe[e] = which < lepe_taps ? lepe.weight[c * lepe_taps + which] : lepe.bias[c];
  }
  __syncthreads();
}

// Sum over the lanes that hold the pieces of a row.
template <int pieces> DEVICE float sum_of_pieces(float v) {
  for (int mask = 1; mask < pieces; mask *= 2) v += __shfl_xor_sync(~0u, v, mask);
  return v;
}

// Brings what will be loaded soon nearer.
DEVICE void prefetch(const bf16* at) {
#ifdef __CUDA_ARCH__
  asm volatile("prefetch.global.L2 [%0];" :: "l"(at));
#endif
}

// What backward loads besides q, k and v.
struct Upstream {
  const bf16 *dout, *out;   // of the block's head; out is null with LePE
  const float* log_sum;     // of the block's window and head
};

// Loads a window. Each thread works further on the pieces that it copied itself, so one barrier at the end is enough.
template <int dim, bool backward>
DEVICE void load_window(const AttentionShape& a, const WindowPlace& window, const bf16* q, const bf16* k, const bf16* v,
                        const Upstream& upstream, const WindowMemory<dim, backward>& m) {
  constexpr int pieces = dim / 8;
  const int n = a.tokens(), end = padded_tokens(n * pieces, 32);   // whole warps, for the sums of pieces
  for (int e = threadIdx.x; e < n * pieces; e += blockDim.x) {
    const int row = e / pieces, p = e % pieces, yx = m.yx[row], token = window.token(a, yx >> 16, yx & 0xffff);
    const int64_t from = int64_t(token) * a.stride + 8 * p;
    copy_async(m.q.piece(row, p), q + from);
    copy_async(m.k.piece(row, p), k + from);
    copy_async(m.v.piece(row, p), v + from);
    if (backward) {
      copy_async(m.dout.piece(row, p), upstream.dout + int64_t(token) * a.channels + 8 * p);
      if (upstream.out) prefetch(upstream.out + int64_t(token) * a.channels + 8 * p);
    }
    if (p == 0) {
      m.where[row] = token;
      if (window.masked) m.query[row].place.region = m.key[row].place.region = short(window.region(a, yx >> 16, yx & 0xffff));
    }
  }
  copies_arrived();
  const bool squares = normalises(a.similarity) || a.similarity == Similarity::l2;
  for (int e = threadIdx.x; e < end; e += blockDim.x) {
    const int row = e / pieces, p = e % pieces;
    const bool there = row < n;
    float qq = 0, kk = 0, vv = 0, mean = 0;
    if (squares && there) {
      const Piece x = load_piece(m.q.piece(row, p)), y = load_piece(m.k.piece(row, p)), z = load_piece(m.v.piece(row, p));
      qq = dot(x, x);
      kk = dot(y, y);
      vv = dot(z, z);
    }
    if (squares) {
      qq = sum_of_pieces<pieces>(qq);
      kk = sum_of_pieces<pieces>(kk);
      vv = sum_of_pieces<pieces>(vv);
    }
    if (backward && upstream.out) {
      const int yx = m.yx[there ? row : 0];
      const int64_t from = int64_t(window.token(a, yx >> 16, yx & 0xffff)) * a.channels + 8 * p;
      mean = sum_of_pieces<pieces>(there ? dot(load_piece(m.dout.piece(row, p)), load_piece(upstream.out + from)) : 0.0f);
    }
    if (p != 0 || !there) continue;
    const float scale = log2_e * float(a.logit_scale);
    Token &query = m.query[row], &key = m.key[row];
    query.factor = scale * row_scale(a.similarity, qq, a.eps).inverse;
    query.term = backward ? -log2_e * upstream.log_sum[row] : 0.0f;
    query.other = mean;
    key.factor = row_scale(a.similarity, kk, a.eps).inverse;
    key.term = a.similarity == Similarity::l2 ? scale * kk / -2 : 0.0f;
    key.other = float(a.value_scale) * row_scale(value_similarity(a.similarity), vv, a.eps).inverse;
  }
  __syncthreads();
}

}  // namespace window_attention_mma
