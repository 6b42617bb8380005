// window_attention.cu: out = nu softmax((scale q k + bias) / temperature + mask) v + LePE(v) within each window and head, read from q, k, v
// and written to out in token order: no copy of the rolled or cut map exists (Liu et al., "Swin Transformer", 2021; Dong et al., "CSWin
// Transformer", 2022; Qi et al., "LipsFormer", 2023; Kim et al., "The Lipschitz Constant of Self-Attention", 2021).
#include "engine/ops/window_attention.h"

#include <array>
#include <vector>

#include "engine/map.h"
#include "engine/ops/window_attention_kernels.h"
#include "engine/ops/window_attention_lepe.h"
#include "engine/ops/window_attention_mma_backward.h"
#include "engine/profile.h"

namespace {

using namespace window_attention_kernels;

// The bias table [positions, heads] over the temperature, by head, in the type that computes.
template <class From, class C> struct TableByHead {
  const From* table;
  C* by_head;
  int64_t positions, heads;
  C factor;
  HD void operator()(int64_t i) const { by_head[i] = factor * C(Compute<From>(table[i % positions * heads + i / positions])); }
};

Tensor table_by_head(const Tensor& table, const AttentionShape& a, double temperature, DType compute) {
  if (!table) return {};
  const int64_t positions = a.relative_positions(), heads = a.heads;
  const Tensor by_head = Tensor::empty({heads, positions}, compute, table.device());
  count_kernel({table}, {by_head});
  dispatch(table.dtype(), [&]<class From>() {
    dispatch(compute, [&]<class C>() {
      map(table.device(), heads * positions,
          TableByHead<From, C>{table.data<From>(), by_head.data<C>(), positions, heads, C(1 / temperature)});
    });
  });
  return by_head;
}

// Adds factor times the chunks' sums to the gradient of the table. A row is an element of the table.
template <class C, class To> struct SumTableGradient {
  const C* partial;   // [chunks, heads, positions]
  To* grad;           // [positions, heads]
  int64_t chunks, heads, positions;
  C factor;
  bool add;
  template <class Team> HD void operator()(int64_t i, const Team& team) const {
    const int64_t e = i % positions, head = i / positions;
    const C sum = team.template sum<C>(chunks, [&](int64_t c) { return partial[(c * heads + head) * positions + e]; });
    if (!team.leads()) return;
    To& to = grad[e * heads + head];
    to = To((add ? Compute<To>(to) : Compute<To>(0)) + Compute<To>(factor * sum));
  }
};

template <class C> struct MeanEntropy {
  const C* entropy;   // [parts, heads]
  float* mean;        // [heads]
  int64_t parts, heads, rows;
  template <class Team> HD void operator()(int64_t head, const Team& team) const {
    const C sum = team.template sum<C>(parts, [&](int64_t part) { return entropy[part * heads + head]; });
    if (team.leads()) mean[head] = float(sum / C(rows));
  }
};

// q, k and v: three tensors, or one tensor thrice that holds them side by side.
struct Projections {
  const char* op;
  std::array<Tensor, 3> parts;
  bool fused;

  const Tensor& first() const { return parts[0]; }
  int64_t stride() const { return first().dim(3); }
  int64_t channels() const { return fused ? stride() / 3 : stride(); }
  template <class T> const T* data(int part) const { return parts[part].data<T>() + (fused ? part * channels() : 0); }
};

void check_table(const Projections& x, const Tensor& table, const WindowAttention& c) {
  if (!table) return;
  const Shape wanted{int64_t(2 * c.window_height - 1) * (2 * c.window_width - 1), c.heads};
  check(!c.cross_shaped, '[', x.op, "] heads with windows of two shapes share no bias table");
  check(table.shape() == wanted, '[', x.op, "] the bias table must be ", wanted, ", given ", table.shape());
  check(table.device() == x.first().device(), '[', x.op, "] the projections are on ", x.first().device(), ", the bias table on ",
        table.device());
}

void check_windows(const Projections& x, const WindowAttention& c) {
  const int64_t height = x.first().dim(1), width = x.first().dim(2);
  const int wh = c.window_height, ww = c.window_width;
  const auto check_tiles = [&](int h, int w) {
    check(height > 0 && width > 0 && h > 0 && w > 0 && height % h == 0 && width % w == 0, '[', x.op, "] a map of ", height, " x ", width,
          " cannot be cut into windows of ", h, " x ", w);
  };
  check_tiles(wh, ww);
  if (c.cross_shaped) check_tiles(ww, wh);
  check(!c.cross_shaped || c.heads % 2 == 0, '[', x.op, "] two window shapes cannot share ", c.heads, " heads");
  check(c.shift == 0 || (wh == ww && !c.cross_shaped), '[', x.op, "] only square windows can be shifted, given ", wh, " x ", ww);
  check(c.shift >= 0 && c.shift < wh, '[', x.op, "] shift must be in 0 .. window - 1, given ", c.shift);
}

void check_input(const Projections& x, const Tensor& table, const WindowAttention& c) {
  const Shape& s = x.first().shape();
  const int of = x.fused ? 3 : 1;
  check(s.rank() == 4, '[', x.op, "] the projections must be [B, H, W, ", x.fused ? "3C" : "C", "], given ", s);
  for (const Tensor& part : x.parts)
    check(part.shape() == s && part.dtype() == x.first().dtype() && part.device() == x.first().device(), '[', x.op,
          "] q, k and v must be alike, given ", s, " and ", part.shape());
  check(s[0] > 0 && c.heads > 0 && s[3] > 0 && s[3] % (of * c.heads) == 0, '[', x.op, "] ", s[3], " channels cannot be dealt out to ", of,
        " times ", c.heads, " heads");
  check(std::isfinite(c.temperature) && c.temperature > 0, '[', x.op, "] the temperature must be positive, given ", c.temperature);
  check(std::isfinite(c.scale) && c.scale >= 0 && (c.scale == 0 || !normalises(c.similarity)), '[', x.op,
        "] the scale must be 0 or more, and 0 with a cosine, given ", c.scale);
  check_windows(x, c);
  check_table(x, table, c);
}

double logit_scale(const WindowAttention& c, int dim) {
  if (normalises(c.similarity)) return c.tau / c.temperature;
  const double scale = c.scale == 0 ? 1 / std::sqrt(double(dim)) : c.scale;
  return (c.similarity == Similarity::l2 ? 2 * scale : scale) / c.temperature;
}

// The shapes of windows there are, each for its heads.
std::vector<AttentionShape> passes_of(const Projections& x, const WindowAttention& c, bool lepe) {
  const Shape& s = x.first().shape();
  const int channels = int(x.channels()), dim = channels / c.heads, heads = c.cross_shaped ? c.heads / 2 : c.heads;
  const double value_scale = c.similarity == Similarity::cosine_bounded ? c.nu : 1;
  AttentionShape a{s[0], int(s[1]), int(s[2]), c.window_height, c.window_width, c.shift, 0, heads, dim, channels, int(x.stride()),
                   c.similarity, c.causal, logit_scale(c, dim), value_scale, c.eps, lepe};
  std::vector<AttentionShape> passes{a};
  if (!c.cross_shaped) return passes;
  std::swap(a.window_height, a.window_width);
  a.first_head = heads;
  passes.push_back(a);
  return passes;
}

constexpr size_t most_shared = 227 * 1024;   // that a block may use on the GPUs that this is made for

void check_shared(const char* op, const AttentionShape& a, size_t bytes) {
  check(bytes <= most_shared, '[', op, "] windows of ", a.tokens(), " tokens of ", a.dim, " channels a head do not fit into shared memory");
}

// How the tensor-core kernels are launched.
struct TensorCores {
  int64_t chunks;   // of consecutive windows; with the heads some 16 blocks for each of an H100's 132 multiprocessors
  Launch forward, backward;

  TensorCores(const AttentionShape& a, bool biased) : chunks(std::clamp<int64_t>(16 * 132 / a.heads, 1, a.windows())) {
    using namespace window_attention_mma;
    const int n = a.tokens(), positions = biased ? a.relative_positions() : 0;
    const size_t sums = (biased ? BiasGradient::bytes(positions) : 0) + (a.lepe ? LepeGradient<32>::bytes() : 0);   // of a warp
    const auto by_dim = [&](auto with_32, auto with_64) { return a.dim == 32 ? with_32(n, positions, a.lepe) : with_64(n, positions, a.lepe); };
    const size_t window = by_dim(WindowMemory<32, false>::bytes, WindowMemory<64, false>::bytes);
    const size_t window_back = by_dim(WindowMemory<32, true>::bytes, WindowMemory<64, true>::bytes);
    // Backward's registers are enough for two blocks of four warps or one of eight.
    const int warps = warps_for(n, 8), warps_back = warps_for(n, 2 * (window_back + 4 * sums) <= most_shared ? 4 : 8);
    const dim3 grid(unsigned(a.heads), unsigned(chunks));
    forward = {grid, dim3(unsigned(32 * warps)), window};
    backward = {grid, dim3(unsigned(32 * warps_back)), window_back + warps_back * sums};
  }
  // A warp for each 16 tokens, or for 2 x 16 and so on where that would be more than `most`.
  static int warps_for(int tokens, int most) {
    const int tiles = (tokens + 15) / 16, rounds = (tiles + most - 1) / most;
    return (tiles + rounds - 1) / rounds;
  }
};

// Here is chosen between the two kinds of kernels, for forward and backward alike: tensor cores for bf16 with 32 or 64 channels a head
// wherever a window fits into shared memory; the plain kernels for all else.
bool on_tensor_cores(DType dtype, const AttentionShape& a, bool biased, Device device) {
  return (device.kind == Device::cuda || dry_run()) && dtype == DType::bf16 && (a.dim == 32 || a.dim == 64) &&
         a.batch * a.height * a.width <= std::numeric_limits<int>::max() && TensorCores(a, biased).backward.shared <= most_shared;
}

template <class T> void run_forward(const char* op, const AttentionForward<T>& call, Device device) {
  const AttentionShape& a = call.shape;
  if (dry_run()) return;
  if (device.kind != Device::cuda) return window_attention_cpu(call);
  if constexpr (std::is_same_v<T, bf16>) {
    using namespace window_attention_mma;
    if (on_tensor_cores(dtype_of<T>, a, call.bias, device))
      return launch(TensorCores(a, call.bias).forward,
                    a.dim == 32 ? window_attention_mma_forward_kernel<32> : window_attention_mma_forward_kernel<64>, call);
  }
  const size_t shared = forward_shared<Compute<T>>(a);
  check_shared(op, a, shared);
  launch({dim3(unsigned(a.windows()), unsigned(a.heads)), dim3(threads), shared}, window_attention_forward_kernel<T>, call);
}

template <class T> void run_backward(const char* op, const AttentionBackward<T>& call, Device device) {
  const AttentionShape& a = call.shape;
  if (dry_run()) return;
  if (device.kind != Device::cuda) return window_attention_cpu(call);
  if constexpr (std::is_same_v<T, bf16>) {
    using namespace window_attention_mma;
    if (on_tensor_cores(dtype_of<T>, a, call.bias, device))
      return launch(TensorCores(a, call.bias).backward,
                    a.dim == 32 ? window_attention_mma_backward_kernel<32> : window_attention_mma_backward_kernel<64>, call);
  }
  const size_t shared = backward_shared<Compute<T>>(a, call.dbias != nullptr);
  check_shared(op, a, shared);
  launch({dim3(unsigned(call.chunks), unsigned(a.heads)), dim3(threads), shared}, window_attention_backward_kernel<T>, call);
}

// Into how many chunks of windows backward splits, and so how many sums of the bias gradient there are.
template <class T> int64_t backward_chunks(const AttentionShape& a, bool biased, Device device) {
  if (on_tensor_cores(dtype_of<T>, a, biased, device)) return TensorCores(a, biased).chunks;
  return attention_chunks(a, device.kind == Device::cuda || dry_run() ? most_chunks_cuda : most_chunks_cpu);
}

template <class C> void add_table_gradient(const AttentionShape& a, double temperature, const Tensor& partial, const Tensor& table) {
  auto [grad, beta] = into(table);
  count_kernel({partial}, {Into{grad, beta}});
  const int64_t heads = a.heads, positions = a.relative_positions();
  dispatch(grad.dtype(), [&]<class To>() {
    map_rows(grad.device(), heads * positions,
        SumTableGradient<C, To>{partial.data<C>(), grad.data<To>(), partial.dim(0), heads, positions, C(1 / temperature), beta != 0});
  });
}

// The passes' log sums [windows, heads, tokens] lie one behind the other.
template <class C> C* log_sum_of(const Tensor& log_sum, const AttentionShape& a) {
  return log_sum.data<C>() + a.first_head * a.batch * a.height * a.width;
}

// LePE of a pass in the type that computes.
struct PassLepe {
  Tensor weight, bias;
  PassLepe(const std::vector<Lepe>& lepe, size_t pass, DType dtype) {
    if (lepe.empty()) return;
    weight = computed(lepe[pass].weight, dtype);
    bias = computed(lepe[pass].bias, dtype);
  }
  template <class C> LepeTaps<C> taps() const { return {weight ? weight.data<C>() : nullptr, bias ? bias.data<C>() : nullptr}; }
};

template <class T>
void forward_pass(const Projections& x, const AttentionShape& a, const Tensor& bias, const PassLepe& lepe, const Tensor& out,
                  const Tensor& log_sum, const Tensor& entropy) {
  using C = Compute<T>;
  const int first = a.first_head * a.dim;
  const Device device = out.device();
  const int64_t parts = on_tensor_cores(dtype_of<T>, a, bool(bias), device) ? TensorCores(a, bool(bias)).chunks : a.windows();
  const Tensor entropies = Tensor::empty({parts, a.heads}, dtype_of<C>, device);
  const int64_t part = a.part_size() * int64_t(sizeof(T));
  count_kernel({3 * part, bias, lepe.weight, lepe.bias}, {part, a.rows() * int64_t(sizeof(C)), entropies}, 2 * a.product_macs() + a.lepe_macs());
  count_kernel({entropies}, {a.heads * int64_t(sizeof(float))});
  run_forward<T>(x.op, {a, x.data<T>(0) + first, x.data<T>(1) + first, x.data<T>(2) + first, bias ? bias.data<C>() : nullptr,
                        lepe.taps<C>(), out.data<T>() + first, log_sum_of<C>(log_sum, a), entropies.data<C>()}, device);
  map_rows(device, a.heads, MeanEntropy<C>{entropies.data<C>(), entropy.data<float>() + a.first_head, parts, a.heads,
                                             a.windows() * a.tokens()});
}

using Gradients = std::array<Into, 3>;   // of q, k, v; empty where it is not wanted

Gradients gradients_of(const Projections& x) {
  Gradients to{};
  if (x.fused && x.first().wants_grad()) to.fill(into(x.first()));
  for (int part = 0; !x.fused && part < 3; part++)
    if (x.parts[part].wants_grad()) to[part] = into(x.parts[part]);
  return to;
}

template <class T>
void backward_pass(const Projections& x, const AttentionShape& a, const Tensor& bias, const PassLepe& lepe, const Tensor& log_sum,
                   const Tensor& dout, const Tensor& out, const Gradients& gradients, const Tensor& bias_table, double temperature,
                   const Lepe* lepe_parameters) {
  using C = Compute<T>;
  const int first = a.first_head * a.dim;
  const auto gradient = [&](int part) -> GradientTo<T> {
    const auto& [grad, beta] = gradients[part];
    if (!grad) return {nullptr, false};
    return {grad.template data<T>() + (x.fused ? part * x.channels() : 0) + first, beta != 0};
  };
  const int64_t chunks = backward_chunks<T>(a, bool(bias), dout.device());
  const bool wants_table = bias_table && bias_table.wants_grad();
  const Tensor dbias = wants_table ? Tensor::empty({chunks, a.heads, a.relative_positions()}, dtype_of<C>, dout.device()) : Tensor();
  const bool wants_lepe = lepe_parameters && (lepe_parameters->weight.wants_grad() || lepe_parameters->bias.wants_grad());
  const Tensor dlepe = wants_lepe ? Tensor::empty({chunks, lepe_sums * a.heads * a.dim}, dtype_of<C>, dout.device()) : Tensor();
  const int64_t part = a.part_size() * int64_t(sizeof(T));
  const auto to = [&](int i) { return Moved(gradients[i].grad ? part : 0, gradients[i].beta != 0); };
  count_kernel({(out ? 5 : 4) * part, bias, lepe.weight, lepe.bias, a.rows() * int64_t(sizeof(C))}, {to(0), to(1), to(2), dbias, dlepe},
               5 * a.product_macs() + 2 * a.lepe_macs());
  run_backward<T>(x.op, {a, x.data<T>(0) + first, x.data<T>(1) + first, x.data<T>(2) + first, bias ? bias.data<C>() : nullptr,
                         lepe.taps<C>(), log_sum_of<C>(log_sum, a), dout.data<T>() + first, out ? out.data<T>() + first : nullptr,
                         gradient(0), gradient(1), gradient(2),
                         wants_table ? dbias.data<C>() : nullptr, wants_lepe ? dlepe.data<C>() : nullptr, chunks}, dout.device());
  if (wants_lepe) add_lepe_gradients<C>(dlepe, *lepe_parameters);
  if (wants_table) add_table_gradient<C>(a, temperature, dbias, bias_table);
}

Attended attend(const Projections& x, const Tensor& bias_table, const WindowAttention& config, const std::vector<Lepe>& lepe) {
  const OpRange range(x.op);
  check_input(x, bias_table, config);
  check_lepe(x.op, lepe, config, x.first(), x.channels());
  const std::vector<AttentionShape> passes = passes_of(x, config, !lepe.empty());
  const Shape& s = x.first().shape();
  const DType dtype = x.first().dtype(), compute = dtype == DType::f64 ? DType::f64 : DType::f32;
  const Device device = x.first().device();

  Tensor out = Tensor::empty({s[0], s[1], s[2], x.channels()}, dtype, device);
  const Tensor entropy = Tensor::empty({config.heads}, DType::f32, device);
  const Tensor log_sum = Tensor::empty({s[0] * s[1] * s[2] * config.heads}, compute, device);
  const auto bias = [=] { return table_by_head(bias_table, passes[0], config.temperature, compute); };
  {
    const Tensor by_head = bias();
    for (size_t p = 0; p < passes.size(); p++)
      dispatch(dtype, [&]<class T>() { forward_pass<T>(x, passes[p], by_head, {lepe, p, dtype}, out, log_sum, entropy); });
  }
  bool needs_out = false;
  for (const AttentionShape& a : passes) needs_out |= !a.lepe && on_tensor_cores(dtype, a, bool(bias_table), device);
  const Tensor saved = needs_out ? out.detached() : Tensor();
  const auto of = [&](size_t p) { return p < lepe.size() ? lepe[p] : Lepe(); };
  record(x.op, out, {x.parts[0], x.parts[1], x.parts[2], bias_table, of(0).weight, of(0).bias, of(1).weight, of(1).bias}, [=](const Tensor& dout) {
    const Tensor by_head = bias();
    const Gradients gradients = gradients_of(x);
    for (size_t p = 0; p < passes.size(); p++)
      dispatch(dtype, [&]<class T>() {
        backward_pass<T>(x, passes[p], by_head, {lepe, p, dtype}, log_sum, dout, saved, gradients, bias_table, config.temperature,
                         lepe.empty() ? nullptr : &lepe[p]);
      });
  });
  return {out, entropy};
}

}  // namespace

Attended window_attention(const Tensor& qkv, const Tensor& bias_table, const WindowAttention& config, const std::vector<Lepe>& lepe) {
  return attend({"window_attention", {qkv, qkv, qkv}, true}, bias_table, config, lepe);
}

Attended attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& bias_table, const WindowAttention& config,
                   const std::vector<Lepe>& lepe) {
  return attend({"attention", {q, k, v}, false}, bias_table, config, lepe);
}
