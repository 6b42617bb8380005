// Speed of depthwise_conv and depthwise_conv_gelu at the four stages of LipsFormer-Swin-T, 224 pixels, in GFLOP/s.
#include <benchmark/benchmark.h>

#include "engine/ops.h"

namespace {

Tensor numbers(const Shape& shape, const char* stream, double scale) {
  RandomSequence draw(RandomStream(0, stream), 0, 0);
  std::vector<float> values(shape.size());
  for (float& v : values) v = float(scale * draw.normal());
  return Tensor::from(shape, values, DType::f32);
}

struct Stage {
  Tensor x, weight, bias, dy;
  explicit Stage(const benchmark::State& state) {
    const int64_t channels = state.range(0), side = state.range(1), batch = state.range(2);
    x = numbers({batch, side, side, channels}, "x", 1);
    dy = numbers({batch, side, side, channels}, "dy", 1);
    weight = numbers({channels, 1, 7, 7}, "weight", 0.1);
    bias = numbers({channels}, "bias", 0.1);
  }
  double flops() const { return 2.0 * x.size() * 49; }
};

using Op = Tensor (*)(const Tensor&, const Tensor&, const Tensor&);

void report(benchmark::State& state, double flops) {
  state.counters["GFLOP/s"] = benchmark::Counter(flops * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

void forward(benchmark::State& state, Op op) {
  Arena arena;
  const ArenaScope scope(&arena);
  const Stage stage(state);
  for (auto _ : state) benchmark::DoNotOptimize(op(stage.x, stage.weight, stage.bias));
  report(state, stage.flops());
}

enum Wanted { dx = 1, dweight = 2 };

void backward(benchmark::State& state, Op op, int wanted) {
  Arena arena;
  const ArenaScope scope(&arena);
  Stage stage(state);
  for (auto _ : state) {
    state.PauseTiming();
    if (wanted & dx) want_grad(stage.x);
    if (wanted & dweight) want_grad(stage.weight), want_grad(stage.bias);
    Tape tape;
    Tensor y;
    {
      const TapeScope open(&tape);
      y = op(stage.x, stage.weight, stage.bias);
    }
    state.ResumeTiming();
    tape.backward(y, stage.dy);
  }
  report(state, stage.flops() * (wanted == (dx | dweight) ? 2 : 1));
}

// Channels, side, batch.
void stages(benchmark::internal::Benchmark* b) {
  for (const int64_t batch : {4, 16})
    for (int stage = 0; stage < 4; stage++) b->Args({96 << stage, 56 >> stage, batch});
  b->Unit(benchmark::kMillisecond)->UseRealTime();
}

BENCHMARK_CAPTURE(forward, plain, depthwise_conv)->Apply(stages);
BENCHMARK_CAPTURE(forward, gelu, depthwise_conv_gelu)->Apply(stages);
BENCHMARK_CAPTURE(backward, dgrad, depthwise_conv, dx)->Apply(stages);
BENCHMARK_CAPTURE(backward, wgrad, depthwise_conv, dweight)->Apply(stages);
BENCHMARK_CAPTURE(backward, both, depthwise_conv, dx | dweight)->Apply(stages);
BENCHMARK_CAPTURE(backward, gelu, depthwise_conv_gelu, dx | dweight)->Apply(stages);

}  // namespace

BENCHMARK_MAIN();
