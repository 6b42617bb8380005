// Window attention at the sizes of a Swin network, forward and backward: multiply-adds a second, two flops each. OMP_NUM_THREADS=1 says
// what one core does.
#include <benchmark/benchmark.h>

#include "engine/ops.h"

namespace {

struct Case {
  Arena arena;   // outlives the gradients made in it
  Tensor qkv, table, dout;
  WindowAttention config;
  double macs;   // of one product
};

// Arguments: map size, heads, shift, similarity, batch 4, window 7, 32 channels a head.
void make(Case& c, const benchmark::State& state) {
  const int64_t size = state.range(0), heads = state.range(1), batch = 4, dim = 32;
  c.config = {.heads = int(heads), .window_height = 7, .window_width = 7, .shift = int(state.range(2)), .similarity = Similarity(state.range(3))};
  RandomSequence draw(RandomStream(0, "bench"), 0, 0);
  const auto random = [&](const Shape& shape) {
    Tensor t = Tensor::empty(shape, DType::f32);
    for (int64_t i = 0; i < t.size(); i++) t.data<float>()[i] = float(draw.normal());
    return t;
  };
  c.qkv = random({batch, size, size, 3 * heads * dim});
  c.table = random({169, heads});
  c.dout = random({batch, size, size, heads * dim});
  want_grad(c.qkv);
  want_grad(c.table);
  c.macs = double(batch * size * size * 49 * heads * dim);
}

void report(benchmark::State& state, double flops) {
  state.counters["GFLOP/s"] = benchmark::Counter(flops / 1e9, benchmark::Counter::kIsIterationInvariantRate);
}

void forward(benchmark::State& state) {
  Case c;
  make(c, state);
  const ArenaScope scope(&c.arena);
  for (auto _ : state) benchmark::DoNotOptimize(window_attention(c.qkv, c.table, c.config).out.raw());
  report(state, 2 * 2 * c.macs);
}

void forward_and_backward(benchmark::State& state) {
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
    c.qkv.slot()->filled = c.table.slot()->filled = false;
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
BENCHMARK(forward)->Apply(sizes);
BENCHMARK(forward_and_backward)->Apply(sizes);

}  // namespace

BENCHMARK_MAIN();
