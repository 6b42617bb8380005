// Products with symmetric results against sums in f64: many matrices in one launch, odd and real sizes, symmetric to the bit, three schedules.
#include "op_case.h"

#include "engine/fibers.h"
#include "engine/profile.h"
#include "engine/symmetric_products.h"
#include "schedules.h"

namespace {

constexpr Device cuda{Device::cuda};
using Numbers = std::vector<double>;

const std::vector<Shape> sizes{{1, 1}, {3, 5}, {5, 3}, {17, 33}, {33, 17}, {49, 98}, {96, 49}, {130, 24}, {24, 136}, {129, 131}, {96, 384}, {136, 8}};

Tensor random_matrix(const Shape& shape, DType dtype, int seed = 0) {
  RandomSequence random(RandomStream(4, str("symmetric", seed)), 0, uint64_t(shape.size()));
  return Tensor::from(shape, normal()(shape, random), dtype).to(cuda);
}

Shape square_of(const Shape& shape) {
  const int64_t n = std::min(shape[0], shape[1]);
  return {n, n};
}

// A matrix of the given numbers' type, symmetric.
Tensor random_symmetric(int64_t n, DType dtype) {
  Numbers a = random_matrix({n, n}, dtype, 1).values();
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < i; j++) a[size_t(j * n + i)] = a[size_t(i * n + j)];
  return Tensor::from({n, n}, a, dtype).to(cuda);
}

// The definition, and beside it the sum of its terms' magnitudes: what roundings are in proportion to.
struct Wanted {
  Numbers value, magnitude;
};

Wanted plain(const Tensor& x, const Quadratic& q) {
  const int64_t rows = x.dim(0), columns = x.dim(1), n = std::min(rows, columns), terms = std::max(rows, columns);
  const Numbers all = x.values();
  const auto number = [&](int64_t i, int64_t k) { return all[size_t(rows <= columns ? i * columns + k : k * columns + i)]; };
  Wanted wanted;
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < n; j++) {
      double sum = 0, magnitude = 0;
      for (int64_t k = 0; k < terms; k++) sum += number(i, k) * number(j, k), magnitude += std::abs(number(i, k) * number(j, k));
      const double linear = q.linear == 0 ? 0 : q.linear * all[size_t(i * columns + j)], identity = i == j ? q.identity : 0;
      wanted.value.push_back(q.square * sum + linear + identity);
      wanted.magnitude.push_back(std::abs(q.square) * magnitude + std::abs(linear) + std::abs(identity));
    }
  return wanted;
}

// Half a unit of the result's last place, and the roundings of `terms` additions and a few more in the type that computes. In f64 the wanted number is
// rounded as well.
double allowed(DType dtype, double value, double magnitude, int64_t terms) {
  const double unit = dtype == DType::f64 ? 0x1p-52 : 0x1p-24, last = dtype == DType::bf16 ? 0x1p-8 : unit;
  const double computed = double(terms + 4) * unit * magnitude;
  return computed + last * (std::abs(value) + computed);
}

void check_within(const Tensor& given, const Wanted& wanted, int64_t terms) {
  const Numbers numbers = given.values();
  double worst = 0;
  for (size_t i = 0; i < numbers.size(); i++) {
    const double bound = allowed(given.dtype(), wanted.value[i], wanted.magnitude[i], terms), error = std::abs(numbers[i] - wanted.value[i]);
    worst = std::max(worst, std::isnan(numbers[i]) ? double(INFINITY) : error / (bound + 1e-300));
  }
  CHECK(worst <= 1);
}

void check_symmetric(const Tensor& c) {
  const Numbers numbers = c.values();
  const int64_t n = c.dim(0);
  int64_t apart = 0;
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < i; j++) apart += numbers[size_t(i * n + j)] != numbers[size_t(j * n + i)];
  CHECK(apart == 0);
}

// All of them at once, each against its definition.
void check_products(const std::vector<Tensor>& x, const Quadratic& q) {
  std::vector<Tensor> c;
  for (const Tensor& one : x) c.push_back(Tensor::full(square_of(one.shape()), NAN, one.dtype(), cuda));
  symmetric_products(x, c, q);
  for (size_t i = 0; i < x.size(); i++) {
    INFO(str(x[i].dtype(), " ", x[i].shape()));
    check_within(c[i], plain(x[i], q), x[i].size() / c[i].dim(0));
    check_symmetric(c[i]);
  }
}

template <class F> void in_every_schedule(F&& body) {
  for (const unsigned schedule : schedules) {
    CAPTURE(schedule);
    fibers::schedule = schedule;
    body();
  }
  fibers::schedule = 0;
}

}  // namespace

TEST_CASE("fibers: symmetric products of many matrices are what gemm makes, symmetric to the bit") {
  const GuardedMemory guarded;
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    std::vector<Tensor> x, square;
    for (const Shape& size : sizes) {
      x.push_back(random_matrix(size, dtype));
      square.push_back(random_symmetric(square_of(size)[0], dtype));
    }
    in_every_schedule([&] {
      check_products(x, {});
      check_products(square, {3.4445, -4.775, 2.0315});
    });
  }
}

TEST_CASE("fibers: a symmetric product of several tiles") {
  check_products({random_matrix({768, 192}, DType::bf16), random_matrix({384, 400}, DType::bf16)}, {});
  check_products({random_matrix({200, 192}, DType::f64)}, {.square = -0.5});
}

TEST_CASE("fibers: lines that begin in the middle of 16 bytes") {
  const Tensor all = random_matrix({8 * 16 + 3}, DType::bf16);
  check_products({all.slice(3, 128).view({8, 16}), all.slice(1, 128).view({16, 8})}, {});
}

TEST_CASE("fibers: more matrices than one launch has room for") {
  std::vector<Tensor> x;
  for (int i = 0; i < 260; i++) x.push_back(random_matrix({1 + i % 3, 1 + i % 4}, DType::f32, i));
  check_products(x, {.identity = 2});
}

TEST_CASE("fibers: products with a symmetric matrix on the smaller side") {
  const GuardedMemory guarded;
  for (const DType dtype : {DType::f64, DType::bf16}) {
    std::vector<Tensor> s, x, y;
    for (const Shape& size : sizes) {
      s.push_back(random_symmetric(square_of(size)[0], dtype));
      x.push_back(random_matrix(size, dtype));
      y.push_back(Tensor::full(size, NAN, dtype, cuda));
    }
    in_every_schedule([&] {
      products_with_symmetric(s, x, y);
      for (size_t i = 0; i < x.size(); i++) {
        INFO(str(dtype, " ", x[i].shape()));
        const int64_t rows = x[i].dim(0), columns = x[i].dim(1), n = s[i].dim(0);
        const Numbers left = (rows <= columns ? s[i] : x[i]).values(), right = (rows <= columns ? x[i] : s[i]).values();
        Wanted wanted;
        for (int64_t r = 0; r < rows; r++)
          for (int64_t c = 0; c < columns; c++) {
            double sum = 0, magnitude = 0;
            for (int64_t k = 0; k < n; k++) {
              const double term = left[size_t(r * n + k)] * right[size_t(k * columns + c)];
              sum += term, magnitude += std::abs(term);
            }
            wanted.value.push_back(sum), wanted.magnitude.push_back(magnitude);
          }
        check_within(y[i], wanted, n);
        y[i].copy_from(Tensor::full(x[i].shape(), NAN, dtype, cuda));
      }
    });
  }
}

TEST_CASE("symmetric products: half of the multiply-adds are counted") {
  const Profile profile;
  const OpRange range("newton_schulz");
  const Tensor x = random_matrix({6, 10}, DType::bf16), c = random_matrix({6, 6}, DType::bf16);
  symmetric_products({x}, {c});
  CHECK(profile.macs() == 6 * 7 / 2 * 10);
}

TEST_CASE("symmetric products: operands that do not go together are refused") {
  const Tensor x = random_matrix({3, 5}, DType::f32), c = random_matrix({3, 3}, DType::f32), other = random_matrix({5, 5}, DType::f32);
  CHECK_THROWS_WITH(symmetric_products({x}, {other}), doctest::Contains("goes with [3, 3]"));
  CHECK_THROWS_WITH(symmetric_products({x}, {c, c}), doctest::Contains("1 matrices, 2"));
  CHECK_THROWS_WITH(symmetric_products({x}, {c.to(DType::bf16)}), doctest::Contains("all must be f32"));
  CHECK_THROWS_WITH(symmetric_products({x}, {c.to(Device{})}), doctest::Contains("all must lie on cuda"));
  CHECK_THROWS_WITH(symmetric_products({x}, {c}, {.linear = 1}), doctest::Contains("symmetric matrices"));
  CHECK_THROWS_WITH(products_with_symmetric({c}, {x}, {c}), doctest::Contains("a result of"));
}
