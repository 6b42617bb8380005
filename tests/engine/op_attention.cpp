// Cases of attention's options: windows that are no squares, stripes, causal masks, scales, temperatures, l2, three tensors. What square
// windows alone are held to stands in op_window_attention.cpp.
#include <cmath>

#include "attention_reference.h"
#include "engine/fibers.h"
#include "op_case.h"

namespace {

constexpr Similarity dot = Similarity::dot, cosine = Similarity::cosine, bounded = Similarity::cosine_bounded, l2 = Similarity::l2;

struct AttentionCase {
  std::string name;
  Shape map;   // [B, H, W, C]
  WindowAttention config;
  bool with_table = false, with_lepe = false;

  int shapes() const { return config.cross_shaped ? 2 : 1; }
  Shape kernel() const { return {map[3] / shapes(), 1, 3, 3}; }
  Shape table() const { return {int64_t(2 * config.window_height - 1) * (2 * config.window_width - 1), config.heads}; }
  Shape fused() const { return {map[0], map[1], map[2], 3 * map[3]}; }
};

const std::vector<AttentionCase>& all_cases() {
  static const std::vector<AttentionCase> cases = {
      {"causal 1 x 50", {1, 1, 50, 10}, {.heads = 2, .window_height = 1, .window_width = 50, .causal = true}},
      {"a sequence of 17 with a bias", {2, 1, 17, 8}, {.heads = 1, .window_height = 1, .window_width = 17}, true},
      {"2 x 3 windows with a bias", {1, 4, 6, 6}, {.heads = 2, .window_height = 2, .window_width = 3}, true},
      {"3 x 2 causal windows with a bias", {1, 6, 4, 6}, {.heads = 2, .window_height = 3, .window_width = 2, .causal = true}, true},
      {"causal shifted windows", {1, 6, 6, 4}, {.heads = 1, .window_height = 3, .window_width = 3, .shift = 1, .causal = true}, true},
      {"scale 0.3, temperature 0.5", {1, 4, 4, 6}, {.heads = 2, .window_height = 4, .window_width = 4, .scale = 0.3, .temperature = 0.5}, true},
      {"temperature 3 and shifted cosines", {1, 6, 6, 6},
       {.heads = 2, .window_height = 3, .window_width = 3, .shift = 1, .similarity = cosine, .tau = 4, .temperature = 3}, true},
      {"scale 0.3", {1, 1, 9, 8}, {.heads = 1, .window_height = 1, .window_width = 9, .scale = 0.3}},
      {"stripes of 2", {1, 6, 6, 12}, {.heads = 4, .window_height = 6, .window_width = 2, .cross_shaped = true}},
      {"bounded stripes of 1", {1, 4, 4, 6},
       {.heads = 2, .window_height = 4, .window_width = 1, .similarity = bounded, .tau = 3, .nu = 1.5, .eps = 0.1, .cross_shaped = true}},
      {"l2 with a bias", {2, 2, 6, 6}, {.heads = 2, .window_height = 2, .window_width = 3, .similarity = l2, .scale = 0.4}, true},
      {"causal l2", {1, 1, 29, 6},
       {.heads = 2, .window_height = 1, .window_width = 29, .similarity = l2, .temperature = 1.5, .causal = true}},
      {"LePE in windows with a bias", {2, 4, 6, 6}, {.heads = 2, .window_height = 4, .window_width = 3}, true, true},
      {"LePE in one token", {1, 2, 2, 3}, {.heads = 1, .window_height = 1, .window_width = 1}, false, true},
      {"LePE in stripes of 2", {1, 6, 6, 12}, {.heads = 4, .window_height = 6, .window_width = 2, .cross_shaped = true}, false, true},
      {"LePE in stripes of 1, causal l2", {2, 4, 4, 6},
       {.heads = 2, .window_height = 4, .window_width = 1, .similarity = l2, .causal = true, .cross_shaped = true}, false, true},
      {"LePE of values that are normalised", {1, 6, 6, 8},
       {.heads = 2, .window_height = 6, .window_width = 3, .similarity = bounded, .tau = 3, .nu = 1.5, .eps = 0.1, .cross_shaped = true}, false, true},
      {"LePE of 33 channels and cosines", {1, 3, 4, 33}, {.heads = 1, .window_height = 3, .window_width = 4, .similarity = cosine, .tau = 4}, false, true},
      {"l2 stripes", {1, 6, 6, 8}, {.heads = 2, .window_height = 6, .window_width = 3, .similarity = l2, .cross_shaped = true}},
  };
  return cases;
}

std::vector<Input> with_parameters(const AttentionCase& c, std::vector<Input> inputs) {
  if (c.with_table) inputs.push_back({c.table(), normal(), Role::weight});
  for (int i = 0; c.with_lepe && i < c.shapes(); i++) {
    inputs.push_back({c.kernel(), normal(0.5), Role::weight});
    inputs.push_back({{c.kernel()[0]}, normal(), Role::wide_weight});
  }
  return inputs;
}

// Of the inputs behind the first `from`.
Tensor table_of(const AttentionCase& c, const Inputs& in, size_t from) { return c.with_table ? in[from] : Tensor(); }
std::vector<Lepe> lepe_of(const AttentionCase& c, const Inputs& in, size_t from) {
  std::vector<Lepe> all;
  for (size_t i = from + c.with_table; i + 1 < in.size(); i += 2) all.push_back({in[i], in[i + 1]});
  return all;
}

Tensor draw(const Shape& shape, int which) {
  RandomSequence random(RandomStream(11, "attention"), 0, which);
  return Tensor::from(shape, normal()(shape, random), DType::f64);
}

void check_equal(const std::string& name, const AttentionReference& wanted, const Attended& given) {
  check_close(name + ", out", wanted.out, given.out.values(), {1e-26, 1e-12}, given.out.shape());
  check_close(name + ", entropy", wanted.entropy, given.entropy.values(), {1e-12, 1e-6}, given.entropy.shape());
}

// A sequence of a batch of 2, one head, with the options of `config`.
void check_long_sequence(int tokens, int dim, WindowAttention config, Device device) {
  config.window_height = 1;
  config.window_width = tokens;
  const Shape shape{2, 1, tokens, dim};
  std::vector<Tensor> x;
  for (int part = 0; part < 3; part++) x.push_back(draw(shape, part).to(DType::f32));
  const Tensor dout = draw(shape, 3).to(DType::f32);
  const auto gradients = [&](DType dtype, Device on) {
    std::vector<Tensor> in;
    for (const Tensor& t : x) {
      in.push_back(t.to(dtype).to(on));
      want_grad(in.back());
    }
    Tape tape;
    Attended y;
    {
      const TapeScope open(&tape);
      y = attention(in[0], in[1], in[2], {}, config);
    }
    tape.backward(y.out, dout.to(dtype).to(on));
    std::vector<std::vector<double>> all{y.out.values(), y.entropy.values()};
    for (const Tensor& t : in) all.push_back(grad_of(t).values());
    return all;
  };
  const auto exact = gradients(DType::f64, {}), given = gradients(DType::f32, device);
  const AttentionReference reference(x[0], x[1], x[2], {}, config);
  check_close("out by plain loops", reference.out, exact[0], {1e-26, 1e-12});
  check_close("entropy by plain loops", reference.entropy, exact[1], {1e-12, 1e-6});
  for (size_t i = 0; i < exact.size(); i++) check_close(str(tokens, " tokens, result ", i), exact[i], given[i], {1e-12, 1e-5});
}

}  // namespace

TEST_CASE("ops: window_attention options, gradients on both devices") {
  for (const AttentionCase& c : all_cases())
    check_op({.name = "window_attention, " + c.name, .inputs = with_parameters(c, {{c.fused()}}),
              .op = [&](const Inputs& in) { return window_attention(in[0], table_of(c, in, 1), c.config, lepe_of(c, in, 1)); }, .samples = 40});
}

TEST_CASE("ops: attention of three tensors, gradients on both devices") {
  for (const AttentionCase& c : all_cases())
    check_op({.name = "attention, " + c.name, .inputs = with_parameters(c, {{c.map}, {c.map}, {c.map}}),
              .op = [&](const Inputs& in) { return attention(in[0], in[1], in[2], table_of(c, in, 3), c.config, lepe_of(c, in, 3)); },
              .samples = 40});
}

TEST_CASE("ops: attention of one tensor that is q and k, or all three, gradients on both devices") {
  const Shape sequence{2, 1, 13, 8};
  for (const Similarity similarity : {l2, dot, cosine}) {
    const WindowAttention config{.heads = 2, .window_height = 1, .window_width = 13, .similarity = similarity, .tau = 3};
    check_op({.name = str("attention, q is k, similarity ", int(similarity)), .inputs = {{sequence}, {sequence}},
              .op = [&](const Inputs& in) { return attention(in[0], in[0], in[1], {}, config); }});
    check_op({.name = str("attention, one tensor, similarity ", int(similarity)), .inputs = {{sequence}},
              .op = [&](const Inputs& in) { return attention(in[0], in[0], in[0], {}, config); }});
  }
  const WindowAttention causal{.heads = 1, .window_height = 1, .window_width = 13, .similarity = l2, .causal = true};
  check_op({.name = "attention, q is k, causal l2", .inputs = {{sequence}, {sequence}},
            .op = [&](const Inputs& in) { return attention(in[0], in[0], in[1], {}, causal); }});
}

TEST_CASE("ops: attention options equal plain loops, on the CPU and on fibers") {
  for (const AttentionCase& c : all_cases())
    for (const Device device : {Device{}, Device{Device::cuda}}) {
      const Tensor qkv = draw(c.fused(), 0), table = c.with_table ? draw(c.table(), 1) : Tensor();
      const Tensor q = part_of(qkv, 0), k = part_of(qkv, 1), v = part_of(qkv, 2), moved = table ? table.to(device) : Tensor();
      std::vector<Lepe> lepe, there;
      for (int i = 0; c.with_lepe && i < c.shapes(); i++) {
        lepe.push_back({draw(c.kernel(), 2 + i), draw({c.kernel()[0]}, 4 + i)});
        there.push_back({lepe.back().weight.to(device), lepe.back().bias.to(device)});
      }
      check_equal(c.name, {q, k, v, table, c.config, lepe}, window_attention(qkv.to(device), moved, c.config, there));
      check_equal(c.name, {q, k, v, table, c.config, lepe}, attention(q.to(device), k.to(device), v.to(device), moved, c.config, there));
      check_equal(c.name, {q, q, v, table, c.config, lepe}, attention(q.to(device), q.to(device), v.to(device), moved, c.config, there));
    }
}

TEST_CASE("ops: window_attention's LePE in one window is a depthwise convolution of the values") {
  const WindowAttention config{.heads = 2, .window_height = 5, .window_width = 4};
  check_op({.name = "window_attention and depthwise_conv",
            .inputs = {{{2, 5, 4, 18}}, {{6, 1, 3, 3}, normal(0.5), Role::weight}, {{6}, normal(), Role::wide_weight}},
            .op = [&](const Inputs& in) { return window_attention(in[0], {}, config, {{in[1], in[2]}}).out; },
            .twin = [&](const Inputs& in) {
              return add(window_attention(in[0], {}, config).out, depthwise_conv(slice_channels(in[0], 12, 6), in[1], in[2]));
            }, .samples = 8});
}

TEST_CASE("ops: attention, causal entropy is that of what is seen") {
  // Equal logits: token i spreads evenly over i + 1 tokens.
  const Tensor zero = Tensor::zeros({1, 1, 5, 4}, DType::f32);
  double wanted = 0;
  for (int i = 0; i < 5; i++) wanted += std::log(i + 1.0) / 5;
  const WindowAttention config{.heads = 1, .window_height = 1, .window_width = 5, .causal = true};
  for (const Device device : {Device{}, Device{Device::cuda}}) {
    const Tensor x = zero.to(device);
    CHECK(attention(x, x, x, {}, config).entropy.item() == doctest::Approx(wanted).epsilon(1e-6));
  }
}

TEST_CASE("ops: attention over the sequences of a ViT and a GPT, on the CPU and on fibers") {
  for (const Device device : {Device{}, Device{Device::cuda}}) {
    check_long_sequence(197, 64, {}, device);
    check_long_sequence(256, 64, {.causal = true}, device);
    check_long_sequence(50, 32, {.similarity = l2}, device);
  }
}

TEST_CASE("ops: attention of windows beyond a block's shared memory is refused on fibers") {
  const Tensor x = Tensor::zeros({1, 1, 512, 64}, DType::f32, Device{Device::cuda});
  const WindowAttention config{.heads = 1, .window_height = 1, .window_width = 512};
  CHECK_THROWS_WITH_AS(attention(x, x, x, {}, config), doctest::Contains("do not fit into shared memory"), Error);
}

TEST_CASE("ops: attention refuses what does not fit") {
  const auto refused = [](const WindowAttention& config, const char* why, Shape map = {1, 4, 6, 12}, const Tensor& table = {}) {
    const Tensor x = Tensor::zeros(map, DType::f32);
    CHECK_THROWS_WITH_AS(attention(x, x, x, table, config), doctest::Contains(why), Error);
  };
  refused({.window_height = 2, .window_width = 3, .shift = 1}, "only square windows can be shifted");
  refused({.window_height = 4, .window_width = 4}, "cannot be cut into windows of 4 x 4");
  refused({.window_height = 0, .window_width = 6}, "cannot be cut into windows of 0 x 6");
  refused({.heads = 3, .window_height = 2, .window_width = 2, .cross_shaped = true}, "two window shapes cannot share 3 heads");
  refused({.heads = 2, .window_height = 4, .window_width = 2, .cross_shaped = true}, "cannot be cut into windows of 2 x 4");
  refused({.heads = 2, .window_height = 2, .window_width = 1, .cross_shaped = true}, "share no bias table", {1, 4, 6, 12},
          Tensor::zeros({3, 2}, DType::f32));
  refused({.window_height = 2, .window_width = 3}, "the bias table must be [15, 1]", {1, 4, 6, 12}, Tensor::zeros({9, 1}, DType::f32));
  refused({.window_height = 2, .window_width = 2, .temperature = 0}, "the temperature must be positive");
  refused({.window_height = 2, .window_width = 2, .scale = -1}, "the scale must be 0 or more");
  refused({.window_height = 2, .window_width = 2, .similarity = cosine, .scale = 1}, "the scale must be 0 or more");
  refused({.heads = 5, .window_height = 2, .window_width = 2}, "12 channels cannot be dealt out");
  refused({.window_height = 2, .window_width = 2}, "must be [B, H, W, C]", {4, 6, 12});
  const Tensor x = Tensor::zeros({1, 4, 6, 12}, DType::f32), y = Tensor::zeros({1, 6, 4, 12}, DType::f32);
  const WindowAttention config{.window_height = 2, .window_width = 2};
  CHECK_THROWS_WITH_AS(attention(x, y, x, {}, config), doctest::Contains("q, k and v must be alike"), Error);
  const auto refused_lepe = [&](WindowAttention config, const std::vector<Lepe>& lepe, const char* why) {
    config.window_height = config.window_width = 2;
    CHECK_THROWS_WITH_AS(attention(x, x, x, {}, config, lepe), doctest::Contains(why), Error);
  };
  const Tensor kernel = Tensor::zeros({12, 1, 3, 3}, DType::f32), bias = Tensor::zeros({12}, DType::f32);
  refused_lepe({.shift = 1}, {{kernel, bias}}, "windows that are not shifted");
  refused_lepe({.heads = 2, .cross_shaped = true}, {{kernel, bias}}, "a kernel for each shape of windows: 2, not 1");
  refused_lepe({}, {{kernel, bias}, {kernel, bias}}, "a kernel for each shape of windows: 1, not 2");
  refused_lepe({}, {{kernel, {}}}, "must be [12, 1, 3, 3] with a bias of 12");
  refused_lepe({.heads = 2, .cross_shaped = true}, {{kernel, bias}, {kernel, bias}}, "must be [6, 1, 3, 3]");
  refused_lepe({}, {{kernel.to(Device{Device::cuda}), bias}}, "LePE's kernel on");
}
