// window_attention_cpu.cpp: window_attention on the CPU. A window of one head is copied out, worked through in the core's own caches, and
// written back to its tokens.
#include <omp.h>

#include <algorithm>
#include <utility>

#include "engine/math.h"
#include "engine/ops/window_attention_lepe_cpu.h"

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
  C *logits, *dlogits;     // [tokens, padded tokens]
  C *bias = nullptr, *dbias = nullptr;   // the same, if there is a table
  C *key_term, *key_sum;   // [padded tokens], l2 only: a key's share of its logits; the sum of their gradients
  HeadLepe<C> lepe;
  int64_t* place;          // [padded tokens]: which token of the map each one is
  int32_t* region;         // [padded tokens]

  static int64_t size(const AttentionShape& a, bool biased) {
    const int64_t n = padded<C>(a.tokens()), d = padded<C>(a.dim);
    return 7 * n * d + (biased ? 4 : 2) * n * n + 11 * n + (a.lepe ? 2 * lepe_sums * d : 0);
  }
  Scratch(const AttentionShape& a, bool biased, C* memory) : tokens(padded<C>(a.tokens())), dim(padded<C>(a.dim)) {
    const auto take = [&](int64_t count) { return std::exchange(memory, memory + count); };
    const int64_t rows = int64_t(tokens) * dim, square = int64_t(tokens) * tokens;
    for (Tokens<C>* x : {&q, &k, &v}) *x = {take(rows), take(tokens), take(tokens)};
    for (C** x : {&dout, &product, &k_columns, &v_columns}) *x = take(rows);
    for (C** x : {&logits, &dlogits}) *x = take(square);
    if (biased) for (C** x : {&bias, &dbias}) *x = take(square);
    for (C** x : {&key_term, &key_sum}) *x = take(tokens);
    if (a.lepe) lepe = {take(lepe_sums * dim), take(lepe_sums * dim)};
    place = reinterpret_cast<int64_t*>(take(2 * tokens));
    region = reinterpret_cast<int32_t*>(take(tokens));
    for (C* x : {q.rows, k.rows, v.rows, dout}) std::fill_n(x, rows, C(0));
    std::fill_n(region, tokens, 0);
  }
};

// Finds the tokens of a window. Done once, because the divisions in it would delay every load.
template <class C> void find_places(const AttentionShape& a, int64_t window, const Scratch<C>& s) {
  const int top = a.top(window), left = a.left(window);
  for (int y = 0, i = 0; y < a.window_height; y++) {
    const int64_t first = a.token(window, top + y, left);
    const int until_wrap = a.width - (left + a.shift) % a.width;
    for (int x = 0; x < a.window_width; x++, i++) s.place[i] = first + x - (x < until_wrap ? 0 : a.width);
  }
  if (!a.masked(window)) return;
  for (int i = 0; i < a.tokens(); i++) s.region[i] = a.region(window, i);
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
  if (!normalises(similarity)) return;
  for (int i = 0; i < n; i++) to.inverse[i] = dot(to.rows + i * row, to.rows + i * row, row);
  for (int i = 0; i < n; i++) {
    const RowScale<C> scale = row_scale(similarity, to.inverse[i], a.eps);
    to.inverse[i] = scale.inverse;
    to.along[i] = scale.along;
  }
  for (int i = 0; i < n; i++)
    for (C *y = to.rows + i * row, *end = y + row; y < end; y += lanes<C>) Vector<C>::store(y, to.inverse[i] * Vector<C>::load(y));
}

// Takes factor times (the gradient, less pull times the token) of the normalised tokens back to the tokens and writes it where they came
// from, with the further gradients of the tokens, if there are any. Only keys of l2 have pulls.
template <class T, class C>
void store_gradient(const AttentionShape& a, const int64_t* place, const Tokens<C>& x, const C* gradient, const C* pulls, C factor,
                    Similarity similarity, int row, const C* further, T* to, bool add) {
  const int dim = a.dim, whole = dim / lanes<C> * lanes<C>, stride = a.stride;
  for (int i = 0; i < a.tokens(); i++) {
    const C *unit = x.rows + i * row, *g = gradient + i * row;
    T* out = to + place[i] * int64_t(stride);
    const bool normalised = normalises(similarity);
    const C inverse = normalised ? factor * x.inverse[i] : factor;
    const C pull = normalised ? x.along[i] * dot(unit, g, row) : pulls ? pulls[i] : C(0);
    for (int c = 0; c < whole; c += lanes<C>) {
      auto value = inverse * (Vector<C>::load(g + c) - pull * Vector<C>::load(unit + c));
      if (further) value += Vector<C>::load(further + i * row + c);
      narrow<C>(add ? value + widen<C>(out + c) : value, out + c);
    }
    for (int c = whole; c < dim; c++) {
      const C value = inverse * (g[c] - pull * unit[c]) + (further ? further[i * row + c] : C(0));
      out[c] = T(add ? value + C(out[c]) : value);
    }
  }
}

// Calls f(i, j, e) for every pair of tokens and the place e of their bias in the table.
template <class F> inline void each_pair(const AttentionShape& a, F&& f) {
  const int height = a.window_height, width = a.window_width;
  for (int i = 0; i < height * width; i++)
    for (int y = 0, j = 0; y < height; y++) {
      const int last = (i / width - y + height - 1) * (2 * width - 1) + i % width + width - 1;
      for (int x = 0; x < width; x++, j++) f(i, j, last - x);
    }
}

// The head's bias for every pair of tokens, laid out like the logits.
template <class C> void spread_bias(const AttentionShape& a, const C* table, int stride, C* bias) {
  const int n = a.tokens();
  for (int i = 0; i < n; i++) std::fill(bias + i * stride + n, bias + (i + 1) * stride, C(padding_logit));
  each_pair(a, [=](int i, int j, int e) { bias[i * stride + j] = table[e]; });
}

template <class C> void gather_bias_gradient(const AttentionShape& a, const C* dbias, int stride, C* table) {
  std::fill_n(table, a.relative_positions(), C(0));
  each_pair(a, [=](int i, int j, int e) { table[e] += dbias[i * stride + j]; });
}

// Rows are worked through in blocks that stay in the first-level cache from product to product. f(begin, end, width): no row of the block
// sees a column from `width` on.
template <class C, class F> void each_block(const AttentionShape& a, F&& f) {
  const int n = a.tokens(), blocks = (n + 11) / 12;
  for (int b = 0; b < blocks; b++) {
    const int begin = n * b / blocks, end = n * (b + 1) / blocks;
    f(begin, end, padded<C>(a.causal ? end : n));
  }
}

// Copies q, k and v of a window and lays the keys out in columns.
template <class T, class C>
void load_window(const AttentionShape& a, int64_t window, const T* q, const T* k, const T* v, const Scratch<C>& s) {
  find_places(a, window, s);
  load(a, s.place, k, a.stride, a.similarity, s.dim, s.k);
  small_transpose(s.tokens, s.dim, s.k.rows, C(a.logit_scale), s.k_columns);
  load(a, s.place, q, a.stride, a.similarity, s.dim, s.q);
  load(a, s.place, v, a.stride, value_similarity(a.similarity), s.dim, s.v);
  if (a.similarity != Similarity::l2) return;
  for (int j = 0; j < s.tokens; j++) {
    const C* k = s.k.rows + j * s.dim;
    s.key_term[j] = C(a.logit_scale / -2) * dot(k, k, s.dim);
  }
}

// Rows begin .. end-1 and columns 0 .. width-1 of the logits: scale q k + bias + mask; what is not to be seen gets the padding's logit.
template <class C>
void make_logits(const AttentionShape& a, bool masked, int begin, int end, int width, const Scratch<C>& s, C* logits) {
  small_gemm<false, C>({end - begin, width, a.dim, s.q.rows + begin * s.dim, s.dim, s.k_columns, s.tokens,
                        s.bias ? s.bias + begin * s.tokens : nullptr, logits, s.tokens});
  const bool hides = a.causal || !s.bias, l2 = a.similarity == Similarity::l2;   // a bias has the padding's logit in it
  if (!hides && !masked && !l2) return;
  for (int i = begin; i < end; i++, logits += s.tokens) {
    if (l2)
      for (int j = 0; j < width; j++) logits[j] += s.key_term[j];
    if (masked)
      for (int j = 0; j < width; j++) logits[j] += s.region[j] == s.region[i] ? C(0) : C(masked_logit);
    if (hides) std::fill(logits + (a.causal ? i + 1 : a.tokens()), logits + width, C(padding_logit));
  }
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

template <class C> PlainRows<C> plain_values(const AttentionShape& a, const Scratch<C>& s) {
  return {s.v.rows, normalises(value_similarity(a.similarity)) ? s.v.inverse : nullptr, s.dim};
}

template <class T> void forward(const AttentionForward<T>& call, int64_t window, int head, const Scratch<Compute<T>>& s) {
  using C = Compute<T>;
  const AttentionShape& a = call.shape;
  const int n = a.tokens(), first = head * a.dim, whole = a.dim / lanes<C> * lanes<C>;
  load_window(a, window, call.q + first, call.k + first, call.v + first, s);
  const bool masked = a.masked(window);
  const int64_t unit = window * a.heads + head;
  C entropy = 0;
  each_block<C>(a, [&](int begin, int end, int width) {
    make_logits(a, masked, begin, end, width, s, s.logits);
    for (int i = begin; i < end; i++) {
      const RowSums<C> sums = exponentiate(s.logits + (i - begin) * s.tokens, width);
      const C log = std::log(sums.sum);
      call.log_sum[unit * n + i] = sums.top + log;
      entropy += log - sums.weighted / sums.sum;
      s.q.inverse[i] = C(a.value_scale) / sums.sum;   // in the place of what only backward needs
    }
    small_gemm<false, C>({end - begin, s.dim, a.causal ? end : n, s.logits, s.tokens, s.v.rows, s.dim, nullptr, s.product, s.dim});
    for (int i = begin; i < end; i++) {
      C factor = s.q.inverse[i], *row = s.product + (i - begin) * s.dim;
      if (a.lepe) s.lepe.forward(a, plain_values(a, s), i, std::exchange(factor, C(1)), row);
      T* to = call.out + first + s.place[i] * a.channels;
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
template <class C> void softmax_gradient(const C* p, C* dp, int n) {
  C mean = 0;
#pragma omp simd reduction(+ : mean)
  for (int j = 0; j < n; j++) mean += p[j] * dp[j];
#pragma omp simd
  for (int j = 0; j < n; j++) dp[j] = p[j] * (dp[j] - mean);
}
template <class C> void add_to(C* sums, const C* row, int n) {
#pragma omp simd
  for (int j = 0; j < n; j++) sums[j] += row[j];
}

// product = pairs y, or pairs^T y; only the lower triangle of causal pairs is there, and only it is worked through.
template <bool Transpose, class C> void multiply_pairs(const AttentionShape& a, const C* pairs, const C* y, const Scratch<C>& s) {
  const int n = a.tokens();
  const auto block = [&](int begin, int end, int first, int last) {
    const C* corner = pairs + (Transpose ? first * s.tokens + begin : begin * s.tokens + first);
    small_gemm<Transpose, C>({end - begin, s.dim, last - first, corner, s.tokens, y + first * s.dim, s.dim, nullptr,
                              s.product + begin * s.dim, s.dim});
  };
  if (!a.causal) return block(0, n, 0, n);
  each_block<C>(a, [&](int begin, int end, int) { Transpose ? block(begin, end, begin, n) : block(begin, end, 0, end); });
}

// The gradient of the logits, and their probabilities in place of the logits.
template <class T> void backward_pairs(const AttentionBackward<T>& call, int64_t window, int head, const Scratch<Compute<T>>& s) {
  using C = Compute<T>;
  const AttentionShape& a = call.shape;
  const bool masked = a.masked(window), sums_keys = a.similarity == Similarity::l2;
  const C* log_sum = call.log_sum + (window * a.heads + head) * a.tokens();
  if (sums_keys) std::fill_n(s.key_sum, s.tokens, C(0));
  each_block<C>(a, [&](int begin, int end, int width) {
    C *p = s.logits + begin * s.tokens, *dp = s.dlogits + begin * s.tokens;
    make_logits(a, masked, begin, end, width, s, p);
    small_gemm<false, C>({end - begin, width, a.dim, s.dout + begin * s.dim, s.dim, s.v_columns, s.tokens, nullptr, dp, s.tokens});
    for (int i = begin; i < end; i++, p += s.tokens, dp += s.tokens) {
      probabilities(p, log_sum[i], width);
      softmax_gradient(p, dp, width);
      if (call.dbias) add_to(s.dbias + i * s.tokens, dp, width);
      if (sums_keys) add_to(s.key_sum, dp, width);
    }
  });
}

template <class T> void backward(const AttentionBackward<T>& call, int64_t window, int head, const Scratch<Compute<T>>& s) {
  using C = Compute<T>;
  const AttentionShape& a = call.shape;
  const int first = head * a.dim;
  const Similarity values = value_similarity(a.similarity);
  load_window(a, window, call.q + first, call.k + first, call.v + first, s);
  small_transpose(s.tokens, s.dim, s.v.rows, C(a.value_scale), s.v_columns);
  load(a, s.place, call.dout + first, a.channels, Similarity::dot, s.dim, Tokens<C>{s.dout, nullptr, nullptr});
  backward_pairs(call, window, head, s);
  const auto store = [&](const GradientTo<T>& gradient, const Tokens<C>& x, const C* pulls, double factor, Similarity similarity,
                         const C* further = nullptr) {
    store_gradient(a, s.place, x, s.product, pulls, C(factor), similarity, s.dim, further, gradient.to + first, gradient.add);
  };
  if (call.dq.to) {
    multiply_pairs<false>(a, s.dlogits, s.k.rows, s);
    store(call.dq, s.q, nullptr, a.logit_scale, a.similarity);
  }
  if (call.dk.to) {
    multiply_pairs<true>(a, s.dlogits, s.q.rows, s);
    store(call.dk, s.k, a.similarity == Similarity::l2 ? s.key_sum : nullptr, a.logit_scale, a.similarity);
  }
  C* of_lepe = a.lepe ? s.q.rows : nullptr;   // the queries have been used
  if (a.lepe) s.lepe.backward(a, plain_values(a, s), s.dout, of_lepe);
  if (call.dv.to) {
    multiply_pairs<true>(a, s.logits, s.dout, s);
    store(call.dv, s.v, nullptr, a.value_scale, values, of_lepe);
  }
}

// Runs f(chunk, head, scratch) for all of them. Which thread does it changes nothing: a chunk's sums are its own.
template <class C, class F> void each_chunk(const AttentionShape& a, const C* bias, const LepeTaps<C>& lepe, int64_t chunks, F&& f) {
  const int64_t size = (Scratch<C>::size(a, bias) + 15) / 16 * 16, tasks = chunks * a.heads;
  const Tensor memory = Tensor::empty({omp_get_max_threads(), size}, dtype_of<C>);
#pragma omp parallel for schedule(static) if (tasks > 1)
  for (int64_t task = 0; task < tasks; task++) {
    const Scratch<C> scratch(a, bias, memory.data<C>() + omp_get_thread_num() * size);
    const int head = int(task % a.heads);
    if (bias) spread_bias(a, bias + head * a.relative_positions(), scratch.tokens, scratch.bias);
    if (a.lepe) scratch.lepe.fill(a, lepe, head, scratch.dim);
    f(task / a.heads, head, scratch);
  }
}

}  // namespace

template <class T> void window_attention_cpu(const AttentionForward<T>& call) {
  using C = Compute<T>;
  const AttentionShape& a = call.shape;
  const int64_t windows = a.windows(), chunks = attention_chunks(a, most_chunks_cpu);
  each_chunk<C>(a, call.bias, call.lepe, chunks, [&](int64_t chunk, int head, const Scratch<C>& s) {
    for (int64_t w = windows * chunk / chunks; w < windows * (chunk + 1) / chunks; w++) forward(call, w, head, s);
  });
}

template <class T> void window_attention_cpu(const AttentionBackward<T>& call) {
  using C = Compute<T>;
  const AttentionShape& a = call.shape;
  const int64_t windows = a.windows(), chunks = call.chunks;
  each_chunk<C>(a, call.bias, call.lepe, chunks, [&](int64_t chunk, int head, const Scratch<C>& s) {
    if (call.dbias) std::fill_n(s.dbias, int64_t(s.tokens) * s.tokens, C(0));
    for (int64_t w = windows * chunk / chunks; w < windows * (chunk + 1) / chunks; w++) backward(call, w, head, s);
    if (call.dbias) gather_bias_gradient(a, s.dbias, s.tokens, call.dbias + (chunk * a.heads + head) * a.relative_positions());
    for (int which = 0; call.dlepe && which < lepe_sums; which++) std::copy_n(s.lepe.sums + which * s.dim, a.dim, &call.lepe_sum(chunk, which, head, 0));
  });
}

template void window_attention_cpu(const AttentionForward<float>&);
template void window_attention_cpu(const AttentionForward<bf16>&);
template void window_attention_cpu(const AttentionForward<double>&);
template void window_attention_cpu(const AttentionBackward<float>&);
template void window_attention_cpu(const AttentionBackward<bf16>&);
template void window_attention_cpu(const AttentionBackward<double>&);
