// Cases of attention on tensor cores: bf16, 32 and 64 channels a head, every size of window that a model here has and odd ones, on fibers
// against the CPU. op_case.h's bound for bf16 holds as it stands: operands of products are rounded to bf16 once (1 part in 512 at most,
// 1 in 800 or so on average), logits, exponentials and sums are f32, and results are rounded to bf16 on both sides.
#include <cmath>

#include "engine/ops/window_attention_mma.h"
#include "op_case.h"
#include "schedules.h"

namespace {

constexpr Similarity dot = Similarity::dot, cosine = Similarity::cosine, bounded = Similarity::cosine_bounded, l2 = Similarity::l2;
constexpr Device cpu{}, cuda{Device::cuda};
const Tolerance b16 = OpCase{}.b16;

struct AttentionCase {
  std::string name;
  Shape map;   // [B, H, W]
  int dim;
  WindowAttention config;
  bool with_table = false, with_lepe = false;

  int shapes() const { return config.cross_shaped ? 2 : 1; }
  Shape kernel() const { return {config.heads * dim / shapes(), 1, 3, 3}; }
  Shape table() const { return {int64_t(2 * config.window_height - 1) * (2 * config.window_width - 1), config.heads}; }
  Shape part(int parts) const { return {map[0], map[1], map[2], int64_t(parts) * config.heads * dim}; }
};

// Windows of few tokens, so that every option is seen in every schedule.
const std::vector<AttentionCase>& small_cases() {
  static const std::vector<AttentionCase> cases = {
      {"3 x 3 shifted, bias", {1, 6, 6}, 32, {.heads = 2, .window_height = 3, .window_width = 3, .shift = 1}, true},
      {"5 x 4 cosine, bias", {1, 5, 8}, 32, {.heads = 1, .window_height = 5, .window_width = 4, .similarity = cosine, .tau = 4, .temperature = 1.5}, true},
      {"4 x 5 bounded, shifted", {2, 5, 5}, 32,
       {.heads = 1, .window_height = 5, .window_width = 5, .shift = 2, .similarity = bounded, .tau = 3, .nu = 1.5, .eps = 0.1}, true},
      {"17 causal, bias", {1, 1, 17}, 64, {.heads = 1, .window_height = 1, .window_width = 17, .causal = true}, true},
      {"35 causal l2", {1, 1, 35}, 32, {.heads = 2, .window_height = 1, .window_width = 35, .similarity = l2, .scale = 0.1, .causal = true}},
      {"6 x 3 l2, bias", {1, 6, 6}, 64, {.heads = 1, .window_height = 6, .window_width = 3, .similarity = l2, .scale = 0.1}, true},
      {"stripes of 2", {1, 8, 8}, 32, {.heads = 2, .window_height = 8, .window_width = 2, .cross_shaped = true}},
      {"LePE in stripes of 2", {1, 8, 8}, 32, {.heads = 4, .window_height = 8, .window_width = 2, .cross_shaped = true}, false, true},
      {"LePE of values that are normalised, bias", {1, 5, 8}, 64,
       {.heads = 1, .window_height = 5, .window_width = 4, .similarity = bounded, .tau = 3, .nu = 1.5, .eps = 0.1}, true, true},
      {"one token", {2, 1, 2}, 64, {.heads = 1, .window_height = 1, .window_width = 1}, true},
  };
  return cases;
}

// The sizes of Swin (49, 64, 196, 256 tokens), CSwin (56, 98), ViT (197) and a decoder (256).
const std::vector<AttentionCase>& real_cases() {
  static const std::vector<AttentionCase> cases = {
      {"7 x 7 shifted", {2, 14, 14}, 32, {.heads = 2, .window_height = 7, .window_width = 7, .shift = 3}, true},
      {"7 x 7 cosine, shifted", {1, 14, 7}, 32, {.heads = 3, .window_height = 7, .window_width = 7, .shift = 3, .similarity = cosine}, true},
      {"7 x 7 bounded, shifted", {1, 7, 14}, 32, {.heads = 1, .window_height = 7, .window_width = 7, .shift = 3, .similarity = bounded}, true},
      {"8 x 8 cosine", {1, 8, 16}, 32, {.heads = 1, .window_height = 8, .window_width = 8, .similarity = cosine}, true},
      {"stripes of 1 x 56", {1, 56, 56}, 32, {.heads = 2, .window_height = 56, .window_width = 1, .cross_shaped = true}, false, true},
      {"stripes of 7 x 14", {1, 14, 14}, 32, {.heads = 2, .window_height = 14, .window_width = 7, .cross_shaped = true}, false, true},
      {"CSwin's last map", {2, 7, 7}, 32, {.heads = 2, .window_height = 7, .window_width = 7}, false, true},
      {"14 x 14 shifted", {1, 14, 14}, 32, {.heads = 1, .window_height = 14, .window_width = 14, .shift = 7, .similarity = cosine}, true},
      {"197", {1, 1, 197}, 64, {.heads = 2, .window_height = 1, .window_width = 197}},
      {"197 l2", {1, 1, 197}, 64, {.heads = 1, .window_height = 1, .window_width = 197, .similarity = l2, .scale = 0.05}},
      {"256 causal", {1, 1, 256}, 64, {.heads = 1, .window_height = 1, .window_width = 256, .causal = true}},
      {"16 x 16 cosine", {1, 16, 16}, 32, {.heads = 1, .window_height = 16, .window_width = 16, .similarity = cosine}, true},
      {"a block walks over several windows", {2, 20, 20}, 32, {.heads = 24, .window_height = 2, .window_width = 2, .shift = 1}, true},
      {"300", {1, 1, 300}, 32, {.heads = 1, .window_height = 1, .window_width = 300}},
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

// Of the inputs behind qkv.
Tensor table_of(const AttentionCase& c, const Inputs& in) { return c.with_table ? in[1] : Tensor(); }
std::vector<Lepe> lepe_of(const AttentionCase& c, const Inputs& in) {
  std::vector<Lepe> all;
  for (size_t i = 1 + c.with_table; i + 1 < in.size(); i += 2) all.push_back({in[i], in[i + 1]});
  return all;
}

Tensor draw(const Shape& shape, int which) {
  RandomSequence random(RandomStream(11, "attention"), 0, which);
  return Tensor::from(shape, normal()(shape, random), DType::bf16);
}

struct Result {
  std::vector<double> out, entropy;
  std::vector<std::vector<double>> gradients;   // of qkv, of the table, of LePE
};

// The op in one tensor, forward and backward, from numbers that bf16 holds.
Result run(const AttentionCase& c, DType dtype, Device device) {
  const DType wide = dtype == DType::f64 ? dtype : DType::f32;
  Inputs in{draw(c.part(3), 0).to(dtype).to(device)};
  for (const Input& parameter : with_parameters(c, {})) in.push_back(draw(parameter.shape, int(2 + in.size())).to(wide).to(device));
  for (Tensor& x : in) want_grad(x);
  Tape tape;
  Attended y;
  {
    const TapeScope open(&tape);
    y = window_attention(in[0], table_of(c, in), c.config, lepe_of(c, in));
  }
  tape.backward(y.out, draw(c.part(1), 2).to(dtype).to(device));
  Result r{y.out.values(), y.entropy.values(), {}};
  for (const Tensor& x : in) r.gradients.push_back(grad_of(x).values());
  return r;
}

void check_equal(const std::string& name, const Result& wanted, const Result& given) {
  check_close(name + ", out", wanted.out, given.out, b16);
  check_close(name + ", entropy", wanted.entropy, given.entropy, {1e-10, 1e-5});   // nothing of it is rounded to bf16
  for (size_t i = 0; i < wanted.gradients.size(); i++) check_close(str(name, ", gradient ", i), wanted.gradients[i], given.gradients[i], b16);
}

// out = (x y^T) y of rows x [16, dim] and y [rows, dim], both copied by all threads: a warp needs what others have copied.
template <int dim, bool barrier> void products_kernel(const bf16* x, const bf16* y, int rows, float* out) {
  using namespace window_attention_mma;
  const Tile<dim> left{dynamic_shared<bf16>()}, right{left.data + 16 * dim};
  for (int e = threadIdx.x; e < (16 + rows) * dim / 8; e += blockDim.x) {
    const int row = e / (dim / 8), p = e % (dim / 8);
    if (row < 16) copy_async(left.piece(row, p), x + 8 * e);
    else copy_async(right.piece(row - 16, p), y + 8 * e - 16 * dim);
  }
  copies_arrived();
  if (barrier) __syncthreads();
  ProductFragment s[4], sum[dim / 8] = {};
  multiply(left, 0, right, 0, rows > 16, s);
  add_product(s, right, 0, rows > 16, sum);
  for (int t = 0; t < dim / 8; t++)
    for (int i = 0; i < 4; i++) out[(threadIdx.x / 32 * 16 + line_of(i / 2)) * dim + column_of(t, i % 2)] = sum[t].value[i];
}

// Numbers small and whole, so that bf16 holds all but the last sums, and f32 those.
template <int dim, bool barrier> double error_of_products(int rows, unsigned schedule) {
  std::vector<bf16> x(16 * dim), y(rows * dim);
  for (int e = 0; e < 16 * dim; e++) x[e] = float((e * 7 + e / dim) % 5 - 2);
  for (int e = 0; e < rows * dim; e++) y[e] = float(e * 5 % 3 - 1 + (e / dim) % 2);
  std::vector<float> out(2 * 16 * dim);
  fibers::schedule = schedule;
  launch({dim3(1), dim3(64), (16 + rows) * dim * sizeof(bf16)}, products_kernel<dim, barrier>, x.data(), y.data(), rows, out.data());
  fibers::schedule = 0;
  double worst = 0;
  for (int i = 0; i < 2 * 16; i++) {
    std::vector<double> row(dim);
    for (int j = 0; j < rows; j++) {
      double s = 0;
      for (int c = 0; c < dim; c++) s += x[i % 16 * dim + c] * y[j * dim + c];
      for (int c = 0; c < dim; c++) row[c] += s * y[j * dim + c];
    }
    for (int c = 0; c < dim; c++) worst = std::max(worst, std::isnan(out[i * dim + c]) ? INFINITY : std::abs(out[i * dim + c] - row[c]));
  }
  return worst;
}

}  // namespace

TEST_CASE("fibers: products of tiles with the tensor cores are exact on whole numbers") {
  for (const unsigned schedule : schedules)
    for (const int rows : {16, 32}) {
      CHECK(error_of_products<32, true>(rows, schedule) == 0);
      CHECK(error_of_products<64, true>(rows, schedule) == 0);
    }
}

#ifndef __SANITIZE_THREAD__   // where it would end the process, as it should
TEST_CASE("fibers: a missing barrier before the tensor cores shows as a wrong number") {
  int found = 0;
  for (const unsigned schedule : schedules) found += error_of_products<64, false>(32, schedule) > 0;
  CHECK(found == 3);
}
#endif

TEST_CASE("ops: window_attention on tensor cores, options") {
  for (const AttentionCase& c : small_cases())
    check_op({.name = "window_attention on tensor cores, " + c.name, .inputs = with_parameters(c, {{c.part(3)}}),
              .op = [&](const Inputs& in) { return window_attention(in[0], table_of(c, in), c.config, lepe_of(c, in)); }, .samples = 4});
}

TEST_CASE("ops: attention on tensor cores of three tensors, of two and of one, on fibers") {
  const AttentionCase& c = small_cases()[0];
  check_op({.name = "attention on tensor cores", .inputs = with_parameters(c, {{c.part(1)}, {c.part(1)}, {c.part(1)}}),
            .op = [&](const Inputs& in) { return attention(in[0], in[1], in[2], in[3], c.config); }, .samples = 4});
  for (const Similarity similarity : {l2, cosine}) {
    const WindowAttention config{.heads = 1, .window_height = 3, .window_width = 7, .similarity = similarity, .tau = 3, .scale = similarity == l2 ? 0.03 : 0};
    check_op({.name = str("attention on tensor cores, q is k, similarity ", int(similarity)), .inputs = {{{1, 3, 7, 32}}, {{1, 3, 7, 32}}},
              .op = [&](const Inputs& in) { return attention(in[0], in[0], in[1], {}, config); }, .samples = 4});
    check_op({.name = str("attention on tensor cores, one tensor, similarity ", int(similarity)), .inputs = {{{1, 3, 7, 32}}},
              .op = [&](const Inputs& in) { return attention(in[0], in[0], in[0], {}, config); }, .samples = 4});
  }
}

TEST_CASE("ops: window_attention on tensor cores at the sizes of models, against f64") {
  const GuardedMemory guarded;
  for (const AttentionCase& c : real_cases()) check_equal(c.name, run(c, DType::f64, cpu), run(c, DType::bf16, cuda));
}

TEST_CASE("ops: window_attention on tensor cores does not hide what is not finite, and a row of zeros has a finite gradient") {
  const WindowAttention config{.heads = 1, .window_height = 5, .window_width = 5, .shift = 1, .similarity = cosine};
  std::vector<double> values = draw({1, 5, 5, 96}, 0).values();
  std::fill_n(values.begin(), 96, 0.0);
  const auto attended = [&] {
    Tensor qkv = Tensor::from({1, 5, 5, 96}, values, DType::bf16).to(cuda);
    want_grad(qkv);
    Tape tape;
    Attended y;
    {
      const TapeScope open(&tape);
      y = window_attention(qkv, {}, config);
    }
    tape.backward(y.out, draw({1, 5, 5, 32}, 2).to(cuda));
    std::vector<double> all = y.out.values();
    for (const double v : grad_of(qkv).values()) all.push_back(v);
    return all;
  };
  for (const double v : attended()) REQUIRE(std::isfinite(v));
  values[96 * 7] = NAN;
  bool found = false;
  for (const double v : attended()) found |= std::isnan(v);
  CHECK(found);
}

TEST_CASE("ops: window_attention leaves windows to the plain kernels that the tensor cores' do not hold") {
  const Tensor x = Tensor::zeros({1, 1, 512, 64}, DType::bf16, cuda);
  CHECK_THROWS_WITH_AS(attention(x, x, x, {}, {.heads = 1, .window_height = 1, .window_width = 512}),
                       doctest::Contains("do not fit into shared memory"), Error);
}
