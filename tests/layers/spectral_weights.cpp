// spectral_weights: sigma_reparam and spectral_norm: the norm of the map, the estimate, the gradient with its rank-one term, folding.
#include "layers/lipschitz/spectral_weights.h"

#include <doctest/doctest.h>

#include <optional>

#include "engine/autograd.h"
#include "layers/linear.h"
#include "matrices.h"

namespace {

const Shape rows_in{3, 6};

// A linear layer [5, 6] with one shard, started; its loss is sum(direction * output).
struct Layer {
  ParameterStore store;
  Linear fc;
  std::optional<SpectralWeights> spectral;
  Workers workers{1};

  explicit Layer(WeightPart part, double factor = 1, bool start = true) {
    const Scope root(store, {.init = {InitRule::xavier}, .weight = part});
    fc = Linear(root / "fc", 6, 5, true, root.init().matrix(), factor);
    store.finalize(DType::f64, 1, 3);
    spectral.emplace(store);
    if (start) begin();
  }
  void begin() {
    spectral->start(workers);
    spectral->iterate(true);
  }
  Matrix weight() const {
    Matrix m(5, 6);
    m.values = fc.weight.raw.raw().values();
    return m;
  }
  double sigma() const { return singular_values(weight()).front(); }
  // The spectral norm of the map that is applied.
  double map_norm() const { return std::abs(fc.weight.scalar()) * sigma(); }
  void set_weight(const std::vector<double>& w) { fill(fc.weight.raw.raw(), w); }
  void scale_weight(double by) {
    std::vector<double> w = fc.weight.raw.raw().values();
    for (double& v : w) v *= by;
    set_weight(w);
  }
  std::vector<double> u() const { return store.buffer(store.spectral_weights[0].u).values(); }

  static Tensor input() { return Tensor::from(rows_in, random_matrix(3, 6, "input").values, DType::f64); }
  static std::vector<double> direction() { return random_matrix(3, 5, "direction").values; }
  std::vector<double> output() const { return fc(input()).values(); }
  double loss() const {
    const std::vector<double> y = output(), d = direction();
    double sum = 0;
    for (size_t i = 0; i < y.size(); i++) sum += y[i] * d[i];
    return sum;
  }
  void backward() {
    const ShardScope shard(0);
    store.begin_gradients(0);
    Tape tape;
    const TapeScope open(&tape);
    const Tensor y = fc(input());
    tape.backward(y, Tensor::from(y.shape(), direction(), DType::f64));
    store.end_gradients(0);
    spectral->pull_back(store.gradient(0));
  }
  std::vector<double> gradient(const Parameter& p) const { return store.slice_of(store.gradient(0), p.index).values(); }
};

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); i++) sum += a[i] * b[i];
  return sum;
}

void check_near(const std::vector<double>& got, const std::vector<double>& expected, double relative) {
  REQUIRE(got.size() == expected.size());
  double scale = 1e-300;
  for (const double v : expected) scale = std::max(scale, std::abs(v));
  for (size_t i = 0; i < got.size(); i++) CHECK(std::abs(got[i] - expected[i]) <= relative * scale);
}

constexpr WeightPart from_sigma{WeightPart::sigma_reparam, true}, from_one{WeightPart::sigma_reparam, false}, fixed{WeightPart::spectral_norm};

}  // namespace

TEST_CASE("spectral weights: at the start gamma is sigma and the map is the matrix, or gamma is 1 and the map has norm 1") {
  Layer a(from_sigma), b(from_one), c(fixed), halved(fixed, 0.5);
  CHECK(a.fc.weight.gain.raw().item() == doctest::Approx(a.sigma()).epsilon(1e-6));
  CHECK(a.fc.weight.scalar() == doctest::Approx(1).epsilon(1e-6));
  CHECK(b.fc.weight.gain.raw().item() == 1);
  CHECK(b.map_norm() == doctest::Approx(1).epsilon(1e-6));
  CHECK(c.map_norm() == doctest::Approx(1).epsilon(1e-6));
  CHECK(halved.map_norm() == doctest::Approx(0.5).epsilon(1e-6));
  CHECK(!c.fc.weight.gain);
  Layer plain(WeightPart{});
  check_near(a.output(), plain.output(), 1e-6);
  for (const double gamma : {-2.5, 0.3}) {
    fill(b.fc.weight.gain.raw(), {gamma});
    b.spectral->iterate(false);
    CHECK(b.map_norm() == doctest::Approx(std::abs(gamma)).epsilon(1e-6));
    CHECK(b.fc.weight.scalar() * gamma > 0);
  }
}

TEST_CASE("spectral weights: the estimate is v W u', and never above the norm") {
  for (int trial = 0; trial < 50; trial++) {
    Layer layer(from_one);
    const Matrix m = random_matrix(5, 6, str("moved.", trial).c_str());   // as if a step had turned everything over
    layer.set_weight(m.values);
    const double exact = singular_values(m).front();
    double before = 0;
    for (int k = 0; k < 6; k++) {
      const std::vector<double> u = layer.u();
      layer.spectral->iterate(true);
      const double sigma = layer.spectral->sigma(0);
      CHECK(sigma <= exact * (1 + 1e-12));
      CHECK(sigma >= before * (1 - 1e-12));
      std::vector<double> v(5, 0.0);
      double length = 0, product = 0;
      for (int r = 0; r < 5; r++) {
        for (int c = 0; c < 6; c++) v[r] += m.at(r, c) * u[c];
        length += v[r] * v[r];
      }
      const std::vector<double> next = layer.u();
      for (int r = 0; r < 5; r++)
        for (int c = 0; c < 6; c++) product += v[r] / std::sqrt(length) * m.at(r, c) * next[c];
      CHECK(sigma == doctest::Approx(product).epsilon(1e-10));
      before = sigma;
    }
    for (int k = 0; k < 100; k++) layer.spectral->iterate(true);
    CHECK(layer.spectral->sigma(0) >= 0.98 * exact);
  }
}

TEST_CASE("spectral weights: a weight ten times as large is the same map, with a tenth of the gradient") {
  Layer once(from_one), tenfold(from_one);
  tenfold.scale_weight(10);
  for (Layer* l : {&once, &tenfold}) {
    l->spectral->iterate(false);
    l->backward();
  }
  check_near(tenfold.output(), once.output(), 1e-12);
  std::vector<double> tenth = once.gradient(once.fc.weight.raw);
  for (double& g : tenth) g /= 10;
  check_near(tenfold.gradient(tenfold.fc.weight.raw), tenth, 1e-12);
  check_near(tenfold.gradient(tenfold.fc.weight.gain), once.gradient(once.fc.weight.gain), 1e-12);
}

TEST_CASE("spectral weights: the gradient stands across the weight, converged or not") {
  for (const WeightPart& part : {from_sigma, from_one, fixed})
    for (const bool converged : {true, false}) {
      Layer layer(part);
      if (!converged) {
        layer.set_weight(random_matrix(5, 6, "other").values);
        layer.spectral->iterate(true);
        CHECK(layer.spectral->sigma(0) < 0.999 * layer.sigma());
      }
      layer.backward();
      const std::vector<double> g = layer.gradient(layer.fc.weight.raw), w = layer.fc.weight.raw.raw().values();
      CHECK(dot(g, g) > 0);
      CHECK(std::abs(dot(g, w)) <= 1e-12 * std::sqrt(dot(g, g) * dot(w, w)));
    }
}

TEST_CASE("spectral weights: gradients are those of the loss with an exact norm") {
  for (const double factor : {1.0, 0.5}) {
    Layer layer(from_one, factor);
    fill(layer.fc.weight.gain.raw(), {1.7});
    layer.spectral->iterate(true);
    layer.backward();
    const std::vector<double> w = layer.fc.weight.raw.raw().values(), g = layer.gradient(layer.fc.weight.raw);
    const auto loss_at = [&](const std::vector<double>& weight, double gamma) {
      layer.set_weight(weight);
      fill(layer.fc.weight.gain.raw(), {gamma});
      layer.begin();
      return layer.loss();
    };
    std::vector<double> slopes;
    const double h = 1e-4;
    for (size_t i = 0; i < w.size(); i++) {
      std::vector<double> up = w, down = w;
      up[i] += h, down[i] -= h;
      slopes.push_back((loss_at(up, 1.7) - loss_at(down, 1.7)) / (2 * h));
    }
    check_near(g, slopes, 1e-4);
    CHECK(layer.gradient(layer.fc.weight.gain)[0] == doctest::Approx((loss_at(w, 1.7 + h) - loss_at(w, 1.7 - h)) / (2 * h)).epsilon(1e-6));
  }
}

TEST_CASE("spectral weights: looking does not move u, a step does") {
  Layer layer(from_one);
  layer.set_weight(random_matrix(5, 6, "other").values);
  const std::vector<double> u = layer.u();
  layer.spectral->iterate(false);
  const std::vector<double> first = layer.output();
  layer.spectral->iterate(false);
  CHECK(layer.output() == first);
  CHECK(layer.u() == u);
  layer.spectral->iterate(true);
  CHECK(layer.u() != u);
  CHECK(layer.output() == first);   // the estimate is that of the u before
}

TEST_CASE("spectral weights: a weight of zeros stays one, without NaN, and a gamma of zero can come back") {
  for (const WeightPart& part : {from_sigma, from_one, fixed}) {
    Layer layer(part, 1, false);
    layer.set_weight(std::vector<double>(30, 0.0));
    layer.begin();
    layer.backward();
    for (const double y : layer.output()) CHECK(y == 0);
    for (const double g : layer.gradient(layer.fc.weight.raw)) CHECK(std::isfinite(g));
    if (layer.fc.weight.gain) CHECK(std::isfinite(layer.gradient(layer.fc.weight.gain)[0]));
    for (const double u : layer.u()) CHECK(std::isfinite(u));
  }
  Layer dead(from_one);
  dead.backward();
  const double gradient = dead.gradient(dead.fc.weight.gain)[0];
  fill(dead.fc.weight.gain.raw(), {0});
  dead.spectral->iterate(false);
  dead.backward();
  CHECK(dead.gradient(dead.fc.weight.gain)[0] == doctest::Approx(gradient).epsilon(1e-6));
  for (const double g : dead.gradient(dead.fc.weight.raw)) CHECK(std::abs(g) < 1e-12);
}

TEST_CASE("spectral weights: the gain of weight_norm starts as the rows' lengths") {
  Layer layer(WeightPart{WeightPart::weight_norm}), plain(WeightPart{});
  check_near(layer.output(), plain.output(), 1e-12);
  const Matrix m = layer.weight();
  const std::vector<double> gain = layer.fc.weight.gain.raw().values();
  for (int r = 0; r < 5; r++) {
    double squares = 0;
    for (int c = 0; c < 6; c++) squares += m.at(r, c) * m.at(r, c);
    CHECK(gain[r] == doctest::Approx(std::sqrt(squares)));
  }
}
