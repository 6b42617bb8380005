// muon: the coefficient sets on numbers and on matrices, and the steps that are made of them.
#include "train/muon.h"

#include "layers/lipschitz/singular_value.h"
#include "tests/train/svd.h"

namespace {

using Numbers = std::vector<double>;

const std::vector<std::pair<int64_t, int64_t>> odd_shapes{{1, 1}, {1, 9}, {9, 1}, {7, 7}, {17, 5}, {5, 17}, {33, 31}, {24, 40}, {65, 20}};

double frobenius(const Matrix& m) {
  double s = 0;
  for (const double v : m.values) s += v * v;
  return std::sqrt(s);
}

template <class T> Matrix orthogonalized(const Matrix& m, const Coefficients& set) {
  std::vector<T> x(m.values.begin(), m.values.end());
  orthogonalize(x.data(), m.rows, m.columns, set);
  Matrix result(m.rows, m.columns);
  std::copy(x.begin(), x.end(), result.values.begin());
  return result;
}

OptimizerOptions plain_muon() {
  OptimizerOptions o{.name = "muon"};
  o.weight_decay = 0, o.weight_decay_1d = 0;
  return o;
}

}  // namespace

TEST_CASE("muon: peaks, troughs and slopes of the coefficient sets") {
  struct Row {
    const char* name;
    double peak, trough, slope;   // trough: of x >= 0.01
  };
  for (const Row& row : {Row{"muon5", 1.20237, 0.682, 485}, Row{"lipschitz5", 1.14502, 0.978, 493},
                         Row{"youjiacheng6", 0.99933, 0.9956, 1138}, Row{"polar_express5", 1.14113, 0.859, 989},
                         Row{"polar_express8", 1.0, 1.0, 6364}}) {
    CAPTURE(row.name);
    const Coefficients& set = coefficients_named(row.name);
    double peak = 0, trough = 2;
    for (int i = 1; i <= 400000; i++) {
      const double y = set.map(i / 4e5);
      peak = std::max(peak, y);
      if (i >= 4000) trough = std::min(trough, y);
    }
    CHECK(peak == doctest::Approx(row.peak).epsilon(1e-5));
    CHECK(peak <= set.peak);
    CHECK(trough == doctest::Approx(row.trough).epsilon(6e-4));
    CHECK(set.map(1e-9) / 1e-9 == doctest::Approx(row.slope).epsilon(2e-3));
  }
  CHECK(coefficient_names().size() == 5);
}

TEST_CASE("muon: orthogonalisation maps the singular values and nothing else") {
  for (const std::string& name : coefficient_names())
    for (const auto& [rows, columns] : odd_shapes) {
      CAPTURE(name);
      CAPTURE(rows);
      CAPTURE(columns);
      const Coefficients& set = coefficients_named(name);
      const Matrix m = random_matrix(rows, columns);
      const double norm = frobenius(m);
      const Matrix exact = with_singular_values(m, [&](double s) { return set.map(s / norm); });
      const Matrix ours = orthogonalized<double>(m, set);
      CHECK(largest_difference(ours.values, exact.values) < 1e-11);
      CHECK(largest_singular_value(ours.values.data(), rows, columns) <= set.peak);
      const Matrix single = orthogonalized<float>(m, set);
      CHECK(largest_difference(single.values, exact.values) < 2e-3);
      CHECK(largest_singular_value(single.values.data(), rows, columns) <= set.peak * (set.peak > 1 ? 1.001 : 1));
      for (const double scale : {1e-30, 1e30}) {   // the size of a gradient does not matter
        Matrix other = m;
        for (double& v : other.values) v *= scale;
        CHECK(largest_difference(orthogonalized<float>(other, set).values, exact.values) < 2e-3);
        for (double& v : other.values) v *= scale > 1 ? 1e170 : 1e-170;
        CHECK(largest_difference(orthogonalized<double>(other, set).values, exact.values) < 1e-11);
      }
    }
}

TEST_CASE("muon: the polar factor is exact, also of matrices that are nearly singular") {
  for (const auto& [rows, columns] : odd_shapes)
    for (const double least : {1.0, 1e-5}) {
      CAPTURE(rows);
      CAPTURE(columns);
      const int64_t n = std::min(rows, columns);
      Matrix m = random_matrix(rows, columns);
      const double norm = spectral_norm(m);
      m = with_singular_values(m, [&](double s) { return n == 1 ? s : std::max(s / norm, least * (0.5 + 0.5 * s / norm)); });
      const Matrix exact = with_singular_values(m, [](double) { return 1.0; });
      Matrix ours = m;
      polar_factor(ours.values.data(), rows, columns);
      CHECK(largest_difference(ours.values, exact.values) < 1e-10);
      CHECK(spectral_norm(ours) == doctest::Approx(1).epsilon(1e-12));
      std::vector<float> single(m.values.begin(), m.values.end());
      polar_factor(single.data(), rows, columns);
      CHECK(largest_difference({single.begin(), single.end()}, exact.values) < (least == 1 ? 1e-5 : 0.1));
    }
}

TEST_CASE("muon: one step is its formula") {
  for (const std::string scale : {"rms", "original", "match_adamw"})
    for (const bool nesterov : {true, false})
      for (const Shape& shape : {Shape{9, 4}, Shape{4, 9}, Shape{6, 2, 3, 1}}) {
        CAPTURE(scale);
        CAPTURE(str(shape));
        OptimizerOptions o = plain_muon();
        o.weight_decay = 0.2, o.muon.scale = scale, o.muon.nesterov = nesterov, o.muon.momentum = 0.9, o.muon.momentum_start = 0.5,
        o.muon.momentum_steps = 2, o.clip_grad = 1e-3;   // which must not matter
        BareModel model({matrix_info("w", shape)}, DType::f64);
        const auto optimizer = make_optimizer(model.store, o);
        const double out = double(shape[0]), in = double(shape.size()) / out;
        const double s = scale == "rms"        ? std::sqrt(out / in)
                         : scale == "original" ? std::sqrt(std::max(1.0, out / in))
                                               : 0.2 * std::sqrt(std::max(out, in));
        Numbers w = model.weight(0), m(w.size());
        for (int step = 0; step < 4; step++) {
          const double mu = std::array{0.5, 0.7, 0.9, 0.9}[step];
          model.draw_gradients(step);
          const Numbers g = model.gradient(0);
          optimizer->update(model.workers, 0.1, optimizer->gather(model.workers));
          Matrix u(shape[0], int64_t(in));
          for (size_t i = 0; i < w.size(); i++) {
            m[i] += (1 - mu) * (g[i] - m[i]);
            u.values[i] = nesterov ? g[i] + mu * (m[i] - g[i]) : m[i];
          }
          const double norm = frobenius(u);
          u = with_singular_values(u, [&](double x) { return coefficients_named("muon5").map(x / norm); });
          for (size_t i = 0; i < w.size(); i++) w[i] = (1 - 0.1 * 0.2) * w[i] - 0.1 * s * u.values[i];
          CHECK(largest_difference(model.weight(0), w) < 1e-11);
        }
      }
}

TEST_CASE("muon: a momentum of zero moves nothing") {
  for (const DType dtype : {DType::f32, DType::f64}) {
    BareModel model({matrix_info("w", {5, 8}), matrix_info("qkv", {6, 4}, 3)}, dtype);
    const auto optimizer = make_optimizer(model.store, plain_muon());
    const Numbers before = model.store.values().values();
    for (int step = 0; step < 3; step++) model.step(*optimizer, step, 0.1, 0);
    CHECK(model.store.values().values() == before);
  }
}

TEST_CASE("muon: groups of rows are matrices of their own") {
  BareModel grouped({matrix_info("qkv", {12, 10}, 3)}, DType::f32, 1, 1);
  BareModel split({matrix_info("q", {4, 10}), matrix_info("k", {4, 10}), matrix_info("v", {4, 10})}, DType::f32, 1, 1);
  OptimizerOptions o = plain_muon();
  const auto one = make_optimizer(grouped.store, o), three = make_optimizer(split.store, o);
  for (int p = 0; p < 3; p++) fill(split.store.raw(p), grouped.matrix(0, p).values);
  for (int step = 0; step < 3; step++) {
    grouped.draw_gradients(step);
    const Numbers g = grouped.gradient(0);
    for (int p = 0; p < 3; p++)
      fill(split.store.slice_of(split.store.gradient(0), p), {g.begin() + 40 * p, g.begin() + 40 * (p + 1)});
    one->update(grouped.workers, 0.1, one->gather(grouped.workers));
    three->update(split.workers, 0.1, three->gather(split.workers));
  }
  for (int p = 0; p < 3; p++) CHECK(grouped.matrix(0, p).values == split.weight(p));
  ParameterStore store;
  CHECK_THROWS_AS(store.add(matrix_info("w", {10, 3}, 4)), Error);
}

TEST_CASE("muon: what is no matrix goes by AdamW at its own rate") {
  const std::vector<ParameterInfo> infos{{"bias", {5}, ParameterKind::vector},
                                         {"tokens", {7, 4}, ParameterKind::embedding},
                                         {"d", {4, 1, 3, 3}, ParameterKind::depthwise, {}, 5, 5},
                                         matrix_info("header", {6, 6})};
  OptimizerOptions o = plain_muon();
  o.muon.adamw_lr = 0.25, o.clip_grad = 0;
  BareModel model(infos, DType::f32), other(infos, DType::f32);
  const auto muon = make_optimizer(model.store, o);
  OptimizerOptions plain = o;
  plain.name = "adamw";
  const auto adamw = make_optimizer(other.store, plain);
  for (int step = 0; step < 3; step++) {
    model.step(*muon, step, 0.1);
    other.step(*adamw, step, 0.025);
  }
  for (int p = 0; p < 3; p++) CHECK(model.weight(p) == other.weight(p));
  CHECK(model.weight(3) != other.weight(3));
  CHECK(muon->state().at("adamw.v")->size() < model.store.flat_size());
  CHECK(muon->state().at("muon.m")->size() == 64);   // 36 and padding
}
