// Attention at the sizes of a Swin network, and over whole sequences at those of a ViT and a GPT, forward and backward: multiply-adds a
// second (of the pairs that see each other), two flops each. OMP_NUM_THREADS=1 says what one core does.
#include <benchmark/benchmark.h>

#include <utility>

#include "engine/ops.h"

namespace {

struct Case {
  Arena arena;   // outlives the gradients made in it
  Tensor qkv, table, dout;
  WindowAttention config;
  double macs;   // of one product
};

void make(Case& c, int64_t batch, int64_t height, int64_t width, int64_t dim, bool with_table) {
  RandomSequence draw(RandomStream(0, "bench"), 0, 0);
  const auto random = [&](const Shape& shape) {
    Tensor t = Tensor::empty(shape, DType::f32);
    for (int64_t i = 0; i < t.size(); i++) t.data<float>()[i] = float(draw.normal());
    return t;
  };
  const int64_t heads = c.config.heads, wh = c.config.window_height, ww = c.config.window_width, n = wh * ww;
  c.qkv = random({batch, height, width, 3 * heads * dim});
  if (with_table) c.table = random({(2 * wh - 1) * (2 * ww - 1), heads});
  c.dout = random({batch, height, width, heads * dim});
  want_grad(c.qkv);
  if (with_table) want_grad(c.table);
  c.macs = double(batch * height * width / n * heads * dim) * double(c.config.causal ? n * (n + 1) / 2 : n * n);
}

// Arguments: map size, heads, shift, similarity; batch 4, window 7, 32 channels a head.
void windows(Case& c, const benchmark::State& state) {
  c.config = {.heads = int(state.range(1)), .window_height = 7, .window_width = 7, .shift = int(state.range(2)),
              .similarity = Similarity(state.range(3))};
  make(c, 4, state.range(0), state.range(0), 32, true);
}

// Arguments: tokens, channels a head, causal; batch 16, 6 heads.
void sequences(Case& c, const benchmark::State& state) {
  c.config = {.heads = 6, .window_height = 1, .window_width = int(state.range(0)), .causal = state.range(2) != 0};
  make(c, 16, 1, state.range(0), state.range(1), false);
}

void report(benchmark::State& state, double flops) {
  state.counters["GFLOP/s"] = benchmark::Counter(flops / 1e9, benchmark::Counter::kIsIterationInvariantRate);
}

using Make = void (*)(Case& c, const benchmark::State& state);

void forward(benchmark::State& state, Make make) {
  Case c;
  make(c, state);
  const ArenaScope scope(&c.arena);
  for (auto _ : state) benchmark::DoNotOptimize(window_attention(c.qkv, c.table, c.config).out.raw());
  report(state, 2 * 2 * c.macs);
}

void forward_and_backward(benchmark::State& state, Make make) {
  Case c;
  make(c, state);
  const ArenaScope scope(&c.arena);
  for (auto _ : state) {
    Tape tape;
    Tensor out;
    {
      const TapeScope open(&tape);
      out = window_attention(c.qkv, c.table, c.config).out;
    }
    tape.backward(out, c.dout);
    for (const Tensor& x : {c.qkv, c.table})
      if (x) x.slot()->filled = false;
  }
  report(state, 2 * 7 * c.macs);
}

void sizes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"size", "heads", "shift", "similarity"})->Unit(benchmark::kMillisecond);
  for (int similarity = 0; similarity < 3; similarity++) bench->Args({56, 3, 0, similarity});
  bench->Args({56, 3, 3, 0});
  bench->Args({28, 6, 3, 0});
  bench->Args({14, 12, 3, 0});
  bench->Args({7, 24, 0, 0});
}
void lengths(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"tokens", "dim", "causal"})->Unit(benchmark::kMillisecond);
  for (const int causal : {0, 1})
    for (const auto& [tokens, dim] : {std::pair{50, 32}, {197, 64}, {256, 64}}) bench->Args({tokens, dim, causal});
}
BENCHMARK_CAPTURE(forward, windows, windows)->Apply(sizes);
BENCHMARK_CAPTURE(forward, sequences, sequences)->Apply(lengths);
BENCHMARK_CAPTURE(forward_and_backward, windows, windows)->Apply(sizes);
BENCHMARK_CAPTURE(forward_and_backward, sequences, sequences)->Apply(lengths);

}  // namespace

BENCHMARK_MAIN();
