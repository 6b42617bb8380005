// window_attention_cpu.cpp: window_attention on the CPU. A window of one head is copied out, worked through in the core's own caches, and
// written back to its tokens.
#include <omp.h>

#include <algorithm>
#include <utility>

#include "engine/math.h"
#include "engine/ops/window_attention.h"
#include "engine/small_gemm.h"

namespace {

constexpr double padding_logit = -1e30;   // of columns that only fill up a vector: exp gives 0

// The tokens of a window for one of q, k, v: rows padded to whole vectors, tokens too, padding zero.
template <class C> struct Tokens {
  C* rows;         // [padded tokens, padded dim]
  C *inverse, *along;   // RowScale of each token
};

// What one thread works in.
template <class C> struct Scratch {
  int tokens, dim;         // padded
  Tokens<C> q, k, v;
  C *dout, *product;       // like Tokens::rows
  C *k_columns, *v_columns;   // [padded dim, padded tokens]
  C *logits, *dlogits, *bias, *dbias;   // [tokens, padded tokens]
  int64_t* place;          // [padded tokens]: which token of the map each one is
  int32_t* region;         // [padded tokens]

  static int64_t size(const AttentionShape& a) {
    const int64_t n = padded<C>(a.tokens()), d = padded<C>(a.dim);
    return 7 * n * d + 4 * n * n + 9 * n;
  }
  Scratch(const AttentionShape& a, C* memory) : tokens(padded<C>(a.tokens())), dim(padded<C>(a.dim)) {
    const auto take = [&](int64_t count) { return std::exchange(memory, memory + count); };
    const int64_t rows = int64_t(tokens) * dim, square = int64_t(tokens) * tokens;
    for (Tokens<C>* x : {&q, &k, &v}) *x = {take(rows), take(tokens), take(tokens)};
    for (C** x : {&dout, &product, &k_columns, &v_columns}) *x = take(rows);
    for (C** x : {&logits, &dlogits, &bias, &dbias}) *x = take(square);
    place = reinterpret_cast<int64_t*>(take(2 * tokens));
    region = reinterpret_cast<int32_t*>(take(tokens));
    for (C* x : {q.rows, k.rows, v.rows, dout}) std::fill_n(x, rows, C(0));
    std::fill_n(region, tokens, 0);
  }
};

// Finds the tokens of a window. Done once, because the divisions in it would delay every load.
template <class C> void find_places(const AttentionShape& a, int64_t window, const Scratch<C>& s) {
  const int top = a.top(window), left = a.left(window);
  for (int y = 0, i = 0; y < a.window; y++) {
    const int64_t first = a.token(window, top + y, left);
    const int until_wrap = a.width - (left + a.shift) % a.width;
    for (int x = 0; x < a.window; x++, i++) s.place[i] = first + x - (x < until_wrap ? 0 : a.width);
  }
  if (!a.masked(window)) return;
  for (int i = 0; i < a.tokens(); i++) s.region[i] = a.region(top + i / a.window, left + i % a.window);
}

// Whole vectors from and to storage. Written out, because a loop over numbers of two types is not reliably made into vector code.
template <class C, class T> typename Vector<C>::type widen(const T* from) {
  if constexpr (std::is_same_v<T, C>) return Vector<C>::load(from);
  typename Vector<C>::type v;
  for (int l = 0; l < lanes<C>; l++) v[l] = C(from[l]);
  return v;
}
template <class C, class T> void narrow(typename Vector<C>::type v, T* to) {
  if constexpr (std::is_same_v<T, C>) return Vector<C>::store(to, v);
  for (int l = 0; l < lanes<C>; l++) to[l] = T(v[l]);
}
template <class C> C sum_of(typename Vector<C>::type v) {
  C sum = 0;
  for (int l = 0; l < lanes<C>; l++) sum += v[l];
  return sum;
}
template <class C> C dot(const C* x, const C* y, int n) {
  typename Vector<C>::type sum{};
  for (int c = 0; c < n; c += lanes<C>) sum += Vector<C>::load(x + c) * Vector<C>::load(y + c);
  return sum_of<C>(sum);
}

// Copies the tokens of a window, `stride` numbers apart, and normalises them as the similarity asks.
template <class T, class C>
void load(const AttentionShape& a, const int64_t* place, const T* from, int64_t stride, Similarity similarity, int row,
          const Tokens<C>& to) {
  const int dim = a.dim, whole = dim / lanes<C> * lanes<C>, n = a.tokens();
  for (int i = 0; i < n; i++) {
    const T* x = from + place[i] * stride;
    C* y = to.rows + i * row;
    for (int c = 0; c < whole; c += lanes<C>) Vector<C>::store(y + c, widen<C>(x + c));
    for (int c = whole; c < dim; c++) y[c] = C(x[c]);
  }
  if (similarity == Similarity::dot) return;
  for (int i = 0; i < n; i++) to.inverse[i] = dot(to.rows + i * row, to.rows + i * row, row);
  for (int i = 0; i < n; i++) {
    const RowScale<C> scale = row_scale(similarity, to.inverse[i], a.eps);
    to.inverse[i] = scale.inverse;
    to.along[i] = scale.along;
  }
  for (int i = 0; i < n; i++)
    for (C *y = to.rows + i * row, *end = y + row; y < end; y += lanes<C>) Vector<C>::store(y, to.inverse[i] * Vector<C>::load(y));
}

// Takes the gradient of the normalised tokens back to the tokens and writes it where they came from.
template <class T, class C>
void store_gradient(const AttentionShape& a, const int64_t* place, const Tokens<C>& x, const C* gradient, C factor,
                    Similarity similarity, int row, T* to, int64_t stride, bool add) {
  const int dim = a.dim, whole = dim / lanes<C> * lanes<C>;
  for (int i = 0; i < a.tokens(); i++) {
    const C *unit = x.rows + i * row, *g = gradient + i * row;
    T* out = to + place[i] * stride;
    const bool normalised = similarity != Similarity::dot;
    const C inverse = normalised ? factor * x.inverse[i] : factor;
    const C pull = normalised ? x.along[i] * dot(unit, g, row) : C(0);
    for (int c = 0; c < whole; c += lanes<C>) {
      const auto value = inverse * (Vector<C>::load(g + c) - pull * Vector<C>::load(unit + c));
      narrow<C>(add ? value + widen<C>(out + c) : value, out + c);
    }
    for (int c = whole; c < dim; c++) {
      const C value = inverse * (g[c] - pull * unit[c]);
      out[c] = T(add ? value + C(out[c]) : value);
    }
  }
}

// Calls f(i, j, e) for every pair of tokens and the place e of their bias in the table.
template <class F> inline void each_pair(int side, F&& f) {
  for (int i = 0; i < side * side; i++)
    for (int y = 0, j = 0; y < side; y++) {
      const int last = (i / side - y + side - 1) * (2 * side - 1) + i % side + side - 1;
      for (int x = 0; x < side; x++, j++) f(i, j, last - x);
    }
}

// The head's bias for every pair of tokens, laid out like the logits.
template <class C> void spread_bias(const AttentionShape& a, const C* table, int stride, C* bias) {
  const int n = a.tokens();
  std::fill_n(bias, n * stride, C(0));
  for (int i = 0; i < n; i++) std::fill(bias + i * stride + n, bias + (i + 1) * stride, C(padding_logit));
  if (table) each_pair(a.window, [=](int i, int j, int e) { bias[i * stride + j] = table[e]; });
}

template <class C> void gather_bias_gradient(const AttentionShape& a, const C* dbias, int stride, C* table) {
  std::fill_n(table, a.relative_positions(), C(0));
  each_pair(a.window, [=](int i, int j, int e) { table[e] += dbias[i * stride + j]; });
}

// Rows are worked through in blocks that stay in the first-level cache from product to product.
template <class F> void each_block(int rows, F&& f) {
  const int blocks = (rows + 11) / 12;
  for (int b = 0; b < blocks; b++) f(rows * b / blocks, rows * (b + 1) / blocks);
}

// Rows begin .. end-1 of the logits, scale q k + bias + mask.
template <class C> void make_logits(const AttentionShape& a, bool masked, int begin, int end, const Scratch<C>& s, C* logits) {
  small_gemm<false, C>({end - begin, s.tokens, a.dim, s.q.rows + begin * s.dim, s.dim, s.k_columns, s.tokens, s.bias + begin * s.tokens,
                        logits, s.tokens});
  if (!masked) return;
  for (int i = begin; i < end; i++, logits += s.tokens)
    for (int j = 0; j < s.tokens; j++) logits[j] += s.region[j] == s.region[i] ? C(0) : C(masked_logit);
}

template <class C> struct RowSums { C top, sum, weighted; };

// Replaces a row of logits by e = exp(logit - top); weighted is the sum of e (logit - top).
template <class C> RowSums<C> exponentiate(C* row, int n) {
  C top = row[0];
#pragma omp simd reduction(max : top)
  for (int j = 0; j < n; j++) top = row[j] > top ? row[j] : top;
  C sum = 0, weighted = 0;
#pragma omp simd reduction(+ : sum, weighted)
  for (int j = 0; j < n; j++) {
    const C below = row[j] - top, e = fast_exp(below);
    row[j] = e;
    sum += e;
    weighted += e * below;
  }
  return {top, sum, weighted};
}

template <class T> void forward(const AttentionForward<T>& call, int64_t window, int head, const Scratch<Compute<T>>& s) {
  using C = Compute<T>;
  const AttentionShape& a = call.shape;
  const int n = a.tokens(), channels = a.channels(), whole = a.dim / lanes<C> * lanes<C>;
  const T* qkv = call.qkv + head * a.dim;
  T* out = call.out + head * a.dim;
  find_places(a, window, s);
  load(a, s.place, qkv + channels, 3 * channels, a.similarity, s.dim, s.k);
  small_transpose(s.tokens, s.dim, s.k.rows, C(a.logit_scale), s.k_columns);
  load(a, s.place, qkv, 3 * channels, a.similarity, s.dim, s.q);
  load(a, s.place, qkv + 2 * channels, 3 * channels, value_similarity(a.similarity), s.dim, s.v);
  const bool masked = a.masked(window);
  const int64_t unit = window * a.heads + head;
  C entropy = 0;
  each_block(n, [&](int begin, int end) {
    make_logits(a, masked, begin, end, s, s.logits);
    for (int i = begin; i < end; i++) {
      const RowSums<C> sums = exponentiate(s.logits + (i - begin) * s.tokens, s.tokens);
      const C log = std::log(sums.sum);
      call.log_sum[unit * n + i] = sums.top + log;
      entropy += log - sums.weighted / sums.sum;
      s.q.inverse[i] = C(a.value_scale) / sums.sum;   // in the place of what only backward needs
    }
    small_gemm<false, C>({end - begin, s.dim, n, s.logits, s.tokens, s.v.rows, s.dim, nullptr, s.product, s.dim});
    for (int i = begin; i < end; i++) {
      const C factor = s.q.inverse[i], *row = s.product + (i - begin) * s.dim;
      T* to = out + s.place[i] * channels;
      for (int c = 0; c < whole; c += lanes<C>) narrow<C>(factor * Vector<C>::load(row + c), to + c);
      for (int c = whole; c < a.dim; c++) to[c] = T(factor * row[c]);
    }
  });
  call.entropy[unit] = entropy;
}

// logits become probabilities p by the saved row sums; dp becomes the logits' gradient p (dp - sum of p dp).
template <class C> void probabilities(C* row, C log_sum, int n) {
#pragma omp simd
  for (int j = 0; j < n; j++) row[j] = fast_exp(row[j] - log_sum);
}
template <class C> void softmax_gradient(const C* p, C* dp, C* dbias, int n) {
  C mean = 0;
#pragma omp simd reduction(+ : mean)
  for (int j = 0; j < n; j++) mean += p[j] * dp[j];
#pragma omp simd
  for (int j = 0; j < n; j++) {
    dp[j] = p[j] * (dp[j] - mean);
    dbias[j] += dp[j];
  }
}

template <class T> void backward(const AttentionBackward<T>& call, int64_t window, int head, const Scratch<Compute<T>>& s) {
  using C = Compute<T>;
  const AttentionShape& a = call.shape;
  const int n = a.tokens(), channels = a.channels();
  const T* qkv = call.qkv + head * a.dim;
  T* dqkv = call.dqkv ? call.dqkv + head * a.dim : nullptr;
  const Similarity values = value_similarity(a.similarity);
  find_places(a, window, s);
  load(a, s.place, qkv + channels, 3 * channels, a.similarity, s.dim, s.k);
  small_transpose(s.tokens, s.dim, s.k.rows, C(a.logit_scale), s.k_columns);
  load(a, s.place, qkv + 2 * channels, 3 * channels, values, s.dim, s.v);
  small_transpose(s.tokens, s.dim, s.v.rows, C(a.value_scale), s.v_columns);
  load(a, s.place, qkv, 3 * channels, a.similarity, s.dim, s.q);
  load(a, s.place, call.dout + head * a.dim, channels, Similarity::dot, s.dim, Tokens<C>{s.dout, nullptr, nullptr});
  const bool masked = a.masked(window);
  const C* log_sum = call.log_sum + (window * a.heads + head) * n;
  each_block(n, [&](int begin, int end) {
    C *p = s.logits + begin * s.tokens, *dp = s.dlogits + begin * s.tokens, *dbias = s.dbias + begin * s.tokens;
    make_logits(a, masked, begin, end, s, p);
    small_gemm<false, C>({end - begin, s.tokens, a.dim, s.dout + begin * s.dim, s.dim, s.v_columns, s.tokens, nullptr, dp, s.tokens});
    for (int i = begin; i < end; i++, p += s.tokens, dp += s.tokens, dbias += s.tokens) {
      probabilities(p, log_sum[i], s.tokens);
      softmax_gradient(p, dp, dbias, s.tokens);
    }
  });
  if (!dqkv) return;
  small_gemm<true, C>({n, s.dim, n, s.logits, s.tokens, s.dout, s.dim, nullptr, s.product, s.dim});
  store_gradient(a, s.place, s.v, s.product, C(a.value_scale), values, s.dim, dqkv + 2 * channels, 3 * channels, call.add);
  small_gemm<false, C>({n, s.dim, n, s.dlogits, s.tokens, s.k.rows, s.dim, nullptr, s.product, s.dim});
  store_gradient(a, s.place, s.q, s.product, C(a.logit_scale), a.similarity, s.dim, dqkv, 3 * channels, call.add);
  small_gemm<true, C>({n, s.dim, n, s.dlogits, s.tokens, s.q.rows, s.dim, nullptr, s.product, s.dim});
  store_gradient(a, s.place, s.k, s.product, C(a.logit_scale), a.similarity, s.dim, dqkv + channels, 3 * channels, call.add);
}

// Runs f(chunk, head, scratch) for all of them. Which thread does it changes nothing: a chunk's sums are its own.
template <class C, class F> void each_chunk(const AttentionShape& a, int64_t chunks, F&& f) {
  const int64_t size = (Scratch<C>::size(a) + 15) / 16 * 16, tasks = chunks * a.heads;
  const Tensor memory = Tensor::empty({omp_get_max_threads(), size}, dtype_of<C>);
#pragma omp parallel for schedule(static) if (tasks > 1)
  for (int64_t task = 0; task < tasks; task++) {
    const Scratch<C> scratch(a, memory.data<C>() + omp_get_thread_num() * size);
    f(task / a.heads, int(task % a.heads), scratch);
  }
}

}  // namespace

template <class T> void window_attention_cpu(const AttentionForward<T>& call) {
  using C = Compute<T>;
  const AttentionShape& a = call.shape;
  const int64_t windows = a.windows(), chunks = attention_chunks(windows, most_chunks_cpu);
  each_chunk<C>(a, chunks, [&](int64_t chunk, int head, const Scratch<C>& s) {
    spread_bias(a, call.bias ? call.bias + head * a.relative_positions() : nullptr, s.tokens, s.bias);
    for (int64_t w = windows * chunk / chunks; w < windows * (chunk + 1) / chunks; w++) forward(call, w, head, s);
  });
}

template <class T> void window_attention_cpu(const AttentionBackward<T>& call) {
  using C = Compute<T>;
  const AttentionShape& a = call.shape;
  const int64_t windows = a.windows(), chunks = call.chunks;
  each_chunk<C>(a, chunks, [&](int64_t chunk, int head, const Scratch<C>& s) {
    spread_bias(a, call.bias ? call.bias + head * a.relative_positions() : nullptr, s.tokens, s.bias);
    std::fill_n(s.dbias, int64_t(s.tokens) * s.tokens, C(0));
    for (int64_t w = windows * chunk / chunks; w < windows * (chunk + 1) / chunks; w++) backward(call, w, head, s);
    if (call.dbias) gather_bias_gradient(a, s.dbias, s.tokens, call.dbias + (chunk * a.heads + head) * a.relative_positions());
  });
}

template void window_attention_cpu(const AttentionForward<float>&);
template void window_attention_cpu(const AttentionForward<bf16>&);
template void window_attention_cpu(const AttentionForward<double>&);
template void window_attention_cpu(const AttentionBackward<float>&);
template void window_attention_cpu(const AttentionBackward<bf16>&);
template void window_attention_cpu(const AttentionBackward<double>&);
