// Matrix products against plain loops: every transposition, alpha and beta, odd sizes, three dtypes.
#include "op_case.h"

#include "engine/blas.h"

namespace {

std::vector<double> plain(const Gemm& g, const std::vector<double>& a, const std::vector<double>& b, const std::vector<double>& c) {
  std::vector<double> out(g.m * g.n);
  for (int64_t i = 0; i < g.m; i++)
    for (int64_t j = 0; j < g.n; j++) {
      double sum = 0;
      for (int64_t p = 0; p < g.k; p++)
        sum += (g.transpose_a ? a[p * g.m + i] : a[i * g.k + p]) * (g.transpose_b ? b[j * g.k + p] : b[p * g.n + j]);
      out[i * g.n + j] = g.alpha * sum + (g.beta == 0 ? 0 : g.beta * c[i * g.n + j]);
    }
  return out;
}

Tensor random_matrix(const char* name, const Shape& shape, DType dtype) {
  RandomSequence random(RandomStream(4, name), 0, uint64_t(shape.size()));
  return Tensor::from(shape, normal()(shape, random), dtype);
}

void check_gemm(const Gemm& g, DType a_type, DType b_type, DType c_type, Tolerance tolerance) {
  const Tensor a = random_matrix("a", g.transpose_a ? Shape{g.k, g.m} : Shape{g.m, g.k}, a_type);
  const Tensor b = random_matrix("b", g.transpose_b ? Shape{g.n, g.k} : Shape{g.k, g.n}, b_type);
  // What beta = 0 overwrites may be NaN.
  const Tensor c = g.beta == 0 ? Tensor::full({g.m, g.n}, NAN, c_type) : random_matrix("c", {g.m, g.n}, c_type);
  const std::vector<double> wanted = plain(g, a.values(), b.values(), c.values());
  gemm(g, a, b, c);
  check_close(str("gemm ", g.m, " x ", g.n, " x ", g.k, g.transpose_a ? " A^T" : " A", g.transpose_b ? " B^T" : " B", " alpha ", g.alpha,
                  " beta ", g.beta, " ", a_type, " ", b_type, " -> ", c_type),
              wanted, c.values(), tolerance, {g.m, g.n});
}

constexpr Tolerance exact{1e-28, 1e-13}, single{1e-12, 1e-5}, half{2e-5, 1e-2};

}  // namespace

TEST_CASE("gemm: transpositions, factors and sizes") {
  const GuardedMemory guarded;
  const Threads one(1);
  const std::vector<std::array<int64_t, 3>> sizes{{1, 1, 1}, {7, 33, 1}, {1, 7, 33}, {33, 1, 7}, {33, 7, 33}, {64, 48, 32}, {65, 129, 70}};
  for (const auto& [m, n, k] : sizes)
    for (const bool transpose_a : {false, true})
      for (const bool transpose_b : {false, true})
        for (const auto& [alpha, beta] : {std::pair{1.0, 0.0}, {1.0, 1.0}, {-0.5, 0.0}, {0.25, 2.0}}) {
          const Gemm g{transpose_a, transpose_b, m, n, k, alpha, beta};
          check_gemm(g, DType::f64, DType::f64, DType::f64, exact);
          check_gemm(g, DType::f32, DType::f32, DType::f32, single);
          check_gemm(g, DType::bf16, DType::bf16, DType::bf16, half);
          check_gemm(g, DType::bf16, DType::f32, DType::bf16, half);
          check_gemm(g, DType::bf16, DType::bf16, DType::f32, single);   // a weight's gradient
        }
}

TEST_CASE("gemm: the gradient of a bias comes with a weight's gradient") {
  for (const Device device : {Device{}, Device{Device::cuda}})
    for (const DType dtype : {DType::f32, DType::bf16})
      for (const double beta : {0.0, 1.0}) {
        const Tensor dy = random_matrix("dy", {70, 9}, dtype).to(device), x = random_matrix("x", {70, 5}, dtype).to(device);
        const Tensor before = random_matrix("dw", {9, 5}, DType::f32), dw = before.to(device), sums = Tensor::full({9}, NAN, DType::f32, device);
        const Tensor half_scale = Tensor::full({1}, 0.5, DType::f32, device);
        const Gemm g{.transpose_a = true, .m = 9, .n = 5, .k = 70, .alpha = 1, .beta = beta};
        gemm(g, dy, x, dw, {.scale = half_scale, .bias_gradient = sums});
        const std::vector<double> given = dy.values();
        std::vector<double> wanted(9);
        for (size_t i = 0; i < given.size(); i++) wanted[i % 9] += given[i];
        Gemm scaled = g;
        scaled.alpha = 0.5;
        check_close("sums of dy", wanted, sums.values(), single);   // whatever the scale of the product
        check_close("dw beside them", plain(scaled, given, x.values(), before.values()), dw.values(), single, {9, 5});
      }
}

TEST_CASE("gemm: nothing to sum gives zero, or beta C") {
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    check_gemm({.m = 3, .n = 5, .k = 0}, dtype, dtype, dtype, exact);
    check_gemm({.m = 3, .n = 5, .k = 0, .beta = 1}, dtype, dtype, dtype, exact);
    check_gemm({.m = 0, .n = 5, .k = 4}, dtype, dtype, dtype, exact);
    check_gemm({.m = 3, .n = 0, .k = 4}, dtype, dtype, dtype, exact);
  }
}

TEST_CASE("gemm: sizes that do not fit are refused") {
  const Tensor a = Tensor::zeros({2, 3}, DType::f32), b = Tensor::zeros({3, 4}, DType::f32), c = Tensor::zeros({2, 4}, DType::f32);
  CHECK_THROWS_WITH_AS(gemm({.m = 2, .n = 4, .k = 4}, a, b, c), doctest::Contains("[gemm] 2 x 4 x 4 does not fit"), Error);
  CHECK_THROWS_WITH_AS(gemm({.m = 2, .n = 4, .k = 3}, a, b, c, {.bias_gradient = Tensor::zeros({2}, DType::f32)}),
                       doctest::Contains("beside a transposed A"), Error);
}
