// window_attention.cu: out = nu softmax(scale q k + bias + mask) v within each window and head, read from qkv and written to out in
// token order: no copy of the rolled or cut map exists (Liu et al., "Swin Transformer", 2021; Qi et al., "LipsFormer", 2023).
#include "engine/ops/window_attention.h"

#include "engine/map.h"
#include "engine/ops/window_attention_kernels.h"
#include "engine/profile.h"

namespace {

using namespace window_attention_kernels;

// The bias table [positions, heads] by head, in the type that computes.
template <class From, class C> struct TableByHead {
  const From* table;
  C* by_head;
  int64_t positions, heads;
  HD void operator()(int64_t i) const { by_head[i] = C(Compute<From>(table[i % positions * heads + i / positions])); }
};

Tensor table_by_head(const Tensor& table, const AttentionShape& a, DType compute) {
  if (!table) return {};
  const int64_t positions = a.relative_positions(), heads = a.heads;
  const Tensor by_head = Tensor::empty({heads, positions}, compute, table.device());
  dispatch(table.dtype(), [&]<class From>() {
    dispatch(compute, [&]<class C>() {
      map(table.device(), heads * positions, TableByHead<From, C>{table.data<From>(), by_head.data<C>(), positions, heads});
    });
  });
  return by_head;
}

// Adds the chunks' sums to the gradient of the table.
template <class C, class To> struct SumTableGradient {
  const C* partial;   // [chunks, heads, positions]
  To* grad;           // [positions, heads]
  int64_t chunks, heads, positions;
  bool add;
  HD void operator()(int64_t i) const {
    const int64_t e = i % positions, head = i / positions;
    C sum = 0;
    for (int64_t c = 0; c < chunks; c++) sum += partial[(c * heads + head) * positions + e];
    To& to = grad[e * heads + head];
    to = To((add ? Compute<To>(to) : Compute<To>(0)) + Compute<To>(sum));
  }
};

template <class C> struct MeanEntropy {
  const C* entropy;   // [windows, heads]
  float* mean;        // [heads]
  int64_t windows, heads;
  int tokens;
  template <class Team> HD void operator()(int64_t head, const Team& team) const {
    const C sum = team.template sum<C>(windows, [&](int64_t w) { return entropy[w * heads + head]; });
    if (team.leads()) mean[head] = float(sum / C(windows * tokens));
  }
};

AttentionShape shape_of(const Tensor& qkv, const Tensor& table, const WindowAttention& config) {
  const Shape& s = qkv.shape();
  const int w = config.window_height, heads = config.heads;
  check(s.rank() == 4, "[window_attention] qkv must be [B, H, W, 3C], given ", s);
  check(heads > 0 && s[3] > 0 && s[3] % (3 * heads) == 0, "[window_attention] ", s[3], " channels are not 3 times ", heads, " heads");
  check(s[0] > 0 && w > 0 && s[1] > 0 && s[2] > 0 && s[1] % w == 0 && s[2] % w == 0, "[window_attention] a map of ", s[1], " x ", s[2],
        " cannot be cut into windows of ", w);
  check(config.shift >= 0 && config.shift < w, "[window_attention] shift must be in 0 .. window - 1, given ", config.shift);
  check(!table || table.shape() == Shape({int64_t(2 * w - 1) * (2 * w - 1), heads}), "[window_attention] the bias table must be ",
        Shape({int64_t(2 * w - 1) * (2 * w - 1), heads}), ", given ", table.shape());
  check(!table || table.device() == qkv.device(), "[window_attention] qkv is on ", qkv.device(), ", the bias table on ", table.device());
  const int dim = int(s[3] / (3 * heads));
  const bool dot = config.similarity == Similarity::dot;
  return {s[0], int(s[1]), int(s[2]), w, config.shift, heads, dim, config.similarity, dot ? 1 / std::sqrt(double(dim)) : config.tau,
          config.similarity == Similarity::cosine_bounded ? config.nu : 1, config.eps};
}

template <class T> Tensor run_forward(const AttentionForward<T>& call, Device device) {
  const AttentionShape& a = call.shape;
  if (device.kind == Device::cuda)
    launch({dim3(unsigned(a.windows()), unsigned(a.heads)), dim3(threads), forward_shared<Compute<T>>(a)},
           window_attention_forward_kernel<T>, call);
  else
    window_attention_cpu(call);
  Tensor entropy = Tensor::empty({a.heads}, DType::f32, device);
  map_rows(device, a.heads, MeanEntropy<Compute<T>>{call.entropy, entropy.data<float>(), a.windows(), a.heads, a.tokens()});
  return entropy;
}

template <class T> void run_backward(const AttentionBackward<T>& call, Device device) {
  const AttentionShape& a = call.shape;
  if (device.kind == Device::cuda)
    launch({dim3(unsigned(call.chunks), unsigned(a.heads)), dim3(threads), backward_shared<Compute<T>>(a)},
           window_attention_backward_kernel<T>, call);
  else
    window_attention_cpu(call);
}

template <class C> void add_table_gradient(const AttentionShape& a, const Tensor& partial, const Tensor& table) {
  auto [grad, beta] = into(table);
  const int64_t heads = a.heads, positions = a.relative_positions();
  dispatch(grad.dtype(), [&]<class To>() {
    map(grad.device(), heads * positions,
        SumTableGradient<C, To>{partial.data<C>(), grad.data<To>(), partial.dim(0), heads, positions, beta != 0});
  });
}

}  // namespace

Attended window_attention(const Tensor& qkv, const Tensor& bias_table, const WindowAttention& config) {
  const OpRange range("window_attention");
  const AttentionShape a = shape_of(qkv, bias_table, config);
  const Device device = qkv.device();
  const DType compute = qkv.dtype() == DType::f64 ? DType::f64 : DType::f32;
  const int64_t macs = a.windows() * a.channels() * a.tokens() * a.tokens();   // of one of the products
  count_macs(2 * macs);

  Tensor out = Tensor::empty({a.batch, a.height, a.width, a.channels()}, qkv.dtype(), device);
  const Tensor log_sum = Tensor::empty({a.windows(), a.heads, a.tokens()}, compute, device);
  Tensor entropy;
  {
    const Tensor bias = table_by_head(bias_table, a, compute);
    const Tensor entropies = Tensor::empty({a.windows(), a.heads}, compute, device);
    dispatch(qkv.dtype(), [&]<class T>() {
      using C = Compute<T>;
      entropy = run_forward<T>({a, qkv.data<T>(), bias ? bias.data<C>() : nullptr, out.data<T>(), log_sum.data<C>(), entropies.data<C>()},
                               device);
    });
  }

  record("window_attention", out, {qkv, bias_table}, [=](const Tensor& dout) {
    count_macs(5 * macs);
    const Tensor bias = table_by_head(bias_table, a, compute);
    const int64_t chunks = attention_chunks(a.windows(), device.kind == Device::cuda ? most_chunks_cuda : most_chunks_cpu);
    const bool wants_table = bias_table && bias_table.wants_grad();
    const Tensor dbias = wants_table ? Tensor::empty({chunks, a.heads, a.relative_positions()}, compute, device) : Tensor();
    const Into dqkv = qkv.wants_grad() ? into(qkv) : Into{};
    dispatch(qkv.dtype(), [&]<class T>() {
      using C = Compute<T>;
      run_backward<T>({a, qkv.data<T>(), bias ? bias.data<C>() : nullptr, log_sum.data<C>(), dout.data<T>(),
                       dqkv.grad ? dqkv.grad.data<T>() : nullptr, dqkv.beta != 0, wants_table ? dbias.data<C>() : nullptr, chunks},
                      device);
      if (wants_table) add_table_gradient<C>(a, dbias, bias_table);
    });
  });
  return {out, entropy};
}
