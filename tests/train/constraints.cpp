// constraints: each map against singular values changed one by one, and that what is promised holds at every step.
#include "train/constraint.h"

#include "tests/train/svd.h"
#include "train/spectral_maps.h"

namespace {

using Numbers = std::vector<double>;

constexpr double sigma_max = 1.3;
const std::vector<Shape> shapes{{7, 7}, {12, 5}, {5, 12}, {1, 6}, {6, 1}, {8, 3, 2, 2}};

double p_of(double alpha, double x) {
  const double inner = x - alpha * x * x * x;
  return inner + alpha * inner * inner * inner;
}

// Applies a method once to random matrices of all shapes and compares each with f(s, largest s) on the normalised singular values.
void check_map(const std::string& method, double strength, const std::function<double(double, double)>& f, double size = 1,
               std::optional<double> update = {}, double decay = 0, double lr = 0.1) {
  for (const Shape& shape : shapes) {
    CAPTURE(method);
    CAPTURE(str(shape));
    const double deviation = size / std::sqrt(double(std::max(shape[0], shape.size() / shape[0])));
    BareModel model({matrix_info("w", shape)}, DType::f64, 1, 0, deviation);
    const Matrix before = model.matrix(0);
    const double scale = std::sqrt(double(before.rows) / double(before.columns)), largest = spectral_norm(before) / scale;
    Constraint constraint(model.store, {method, sigma_max, strength, 4000});
    constraint.apply(model.workers, lr, decay, [&](const WeightMatrix&) { return update; });
    const Matrix exact = with_singular_values(before, [&](double s) { return scale * f(s / scale, largest); });
    CHECK(largest_difference(model.weight(0), exact.values) < 1e-9);
  }
}

double excess(const BareModel& model) {   // the largest normalised norm of all matrices, over sigma_max
  double largest = 0;
  for (size_t p = 0; p < model.store.parameters().size(); p++) {
    const ParameterInfo& info = model.store.parameters()[p];
    if (info.kind != ParameterKind::matrix) continue;
    for (int64_t g = 0; g < info.row_groups; g++) {
      const Matrix m = model.matrix(int(p), g);
      largest = std::max(largest, spectral_norm(m) / std::sqrt(double(m.rows) / double(m.columns)) / sigma_max);
    }
  }
  return largest;
}

}  // namespace

TEST_CASE("constraints: strengths of the soft cap") {
  struct Row {
    double sigma_max, update, alpha;
  };
  for (const Row& row : {Row{1, 0.01, 0.0580251}, Row{1, 0.05, 0.1224393}, Row{1, 0.1, 0.158864}, Row{2, 0.1, 0.0306098},
                         Row{2, 0.2, 0.0397161}, Row{3, 0.1, 0.0114098}, Row{6, 0.1, 0.00206546}, Row{6, 0.2, 0.00285246},
                         Row{8, 0.05, 0.000718834}, Row{16, 0.05, 0.000127171}}) {
    const double alpha = soft_cap_strength(row.sigma_max, row.sigma_max + row.update);
    CHECK(alpha == doctest::Approx(row.alpha).epsilon(5e-6));
    CHECK(p_of(alpha, row.sigma_max + row.update) == doctest::Approx(row.sigma_max).epsilon(1e-14));
  }
  CHECK(soft_cap_strength(1, 1) == 0);
  CHECK(soft_cap_strength(1, 0.5) == 0);
  const double threshold = 2 * 1.3064516129;   // u = 1/3
  CHECK(soft_cap_strength(2, threshold) * threshold * threshold == doctest::Approx(1.0 / 3).epsilon(1e-9));
  for (const double k : {1.001, 1.1, 1.3, 1.31, 1.398, 1.7, 2.2, 2.26}) {   // nothing up to k comes out above the cap
    CAPTURE(k);
    const double alpha = soft_cap_strength(1, k);
    double largest = 0;
    for (int i = 0; i <= 10000; i++) largest = std::max(largest, std::abs(p_of(alpha, k * i / 10000)));
    CHECK(largest <= 1 + 1e-12);
  }
}

TEST_CASE("constraints: each map against exact singular values") {
  const double b = sigma_max;
  for (const double size : {0.3, 1.0, 2.0}) {
    check_map("weight_decay", 0, [&](double s, double) { return (1 - 0.1 / b) * s; }, size);
    check_map("weight_decay", 0.5, [&](double s, double) { return 0.95 * s; }, size);
    const auto is_top = [](double s, double top) { return s > top * (1 - 1e-12); };
    check_map("spectral_weight_decay", 0.2, [&](double s, double top) { return is_top(s, top) ? 0.8 * s : s; }, size);
    check_map("spectral_hammer", 0, [&](double s, double top) { return is_top(s, top) ? b : s; }, size);
    check_map("spectral_normalize", 0, [&](double s, double top) { return s * std::min(1.0, b / top); }, size);
    check_map("stiefel", 0, [&](double, double) { return b; }, size);
    check_map("spectral_hard_cap", 0, [&](double s, double) { return std::min(s, b); }, size);
    check_map("clipped_weight_decay", 0.3, [&](double s, double) { return 0.7 * s + 0.3 * std::min(s, b); }, size);
    // Without a known update the soft cap measures: k is the largest singular value.
    check_map("spectral_soft_cap", 0, [&](double s, double top) { return top / b > 2.2 ? NAN : p_of(soft_cap_strength(b, top), s); },
              std::min(size, 1.0));
  }
  // With one: k follows from it, and a matrix that was within the cap before the step is within it afterwards.
  const double k = b * (1 - 0.02) + 0.4;
  check_map("spectral_soft_cap", 0, [&](double s, double) { return p_of(soft_cap_strength(b, k), s); }, 0.3, 0.4, 0.02);
}

TEST_CASE("constraints: by the coupling equation alone Muon's steps never leave the soft cap") {
  for (const double lr : {0.02, 0.2, 0.9})
    for (const double decay : {0.0, 0.1}) {
      CAPTURE(lr);
      Matrix w(9, 6), direction(9, 6);
      for (int step = 0; step < 100; step++) {
        for (int64_t i = 0; i < 54; i++) direction.values[i] = 0.9 * direction.values[i] + normal_number(str("walk.", step).c_str(), i);
        const Matrix o = with_singular_values(direction, [](double) { return 1.0; });
        for (size_t i = 0; i < 54; i++) w.values[i] = (1 - lr * decay) * w.values[i] + lr * o.values[i];
        soft_cap(w.values.data(), 9, 6, soft_cap_strength(sigma_max, sigma_max * (1 - lr * decay) + lr));
        CHECK(spectral_norm(w) <= sigma_max * (1 + 1e-12));
      }
      CHECK(spectral_norm(w) > 0.3 * sigma_max);
    }
}

TEST_CASE("constraints: what is promised holds at every step, with every optimizer") {
  const std::vector<ParameterInfo> infos{matrix_info("w", {10, 14}), matrix_info("qkv", {18, 8}, 3), matrix_info("patch", {6, 2, 2, 2}),
                                         {"tokens", {6, 5}, ParameterKind::embedding}, {"b", {6}, ParameterKind::vector}};
  for (const std::string method : {"spectral_normalize", "stiefel", "spectral_soft_cap", "spectral_hard_cap"})
    for (const std::string name : {"muon", "adamw", "sgd"})
      for (const DType dtype : {DType::f32, DType::f64}) {
        CAPTURE(method);
        CAPTURE(name);
        CAPTURE(name_of(dtype));
        OptimizerOptions o{.name = name};
        o.constraint = {method, sigma_max};
        o.muon.coefficients = dtype == DType::f32 ? "auto" : "muon5", o.muon.adamw_lr = 1;
        BareModel model(infos, dtype, 1, 1, 2.0);   // begins far outside
        const auto optimizer = make_optimizer(model.store, o);
        optimizer->project(model.workers);
        double worst = excess(model);
        const double lr = name == "muon" ? 0.8 : 0.3;
        for (int step = 0; step < (dtype == DType::f32 ? 200 : 40); step++) {
          model.step(*optimizer, step % 50, step % 3 ? lr : 0.05 * lr);
          worst = std::max(worst, excess(model));
        }
        CHECK(worst <= 1 + 1e-12);
        CHECK(worst > 0.5);
        for (int64_t r = 0; r < 6; r++) {
          double squares = 0;
          for (int64_t c = 0; c < 5; c++) squares += std::pow(model.weight(3)[r * 5 + c], 2);
          CHECK(std::sqrt(squares / 5) <= 1 + 1e-12);
        }
      }
}

TEST_CASE("constraints: where nothing is promised nothing is enforced") {
  for (const std::string method : {"weight_decay", "spectral_weight_decay", "spectral_hammer", "clipped_weight_decay"}) {
    CAPTURE(method);
    OptimizerOptions o{.name = "muon"};
    o.weight_decay = 0, o.constraint = {method, sigma_max, 0.01};
    BareModel model({matrix_info("w", {10, 14})}, DType::f32, 1, 1, 2.0);
    const auto optimizer = make_optimizer(model.store, o);
    const Numbers before = model.weight(0);
    optimizer->project(model.workers);
    CHECK(model.weight(0) == before);
    for (int step = 0; step < 5; step++) model.step(*optimizer, step, 0.3);
    CHECK(excess(model) > 1.1);
  }
}

TEST_CASE("constraints: groups of rows are held one by one") {
  BareModel model({matrix_info("qkv", {12, 4}, 3)}, DType::f64, 1, 0);
  Numbers values = model.weight(0);
  for (int i = 0; i < 16; i++) values[i] *= 1e-3, values[32 + i] *= 100;   // q small, v large
  fill(model.store.raw(0), values);
  Constraint constraint(model.store, {"spectral_normalize", sigma_max, 0, 500});
  constraint.apply(model.workers, 0, 0, [](const WeightMatrix&) { return std::nullopt; });
  for (int i = 0; i < 16; i++) CHECK(model.weight(0)[i] == values[i]);
  CHECK(spectral_norm(model.matrix(0, 2)) == doctest::Approx(sigma_max).epsilon(1e-9));
}

TEST_CASE("constraints: zero stays calm, and a weight that is not finite is left to the guard") {
  for (const std::string method : {"weight_decay", "spectral_weight_decay", "spectral_normalize", "stiefel", "spectral_hammer",
                                   "spectral_soft_cap", "spectral_hard_cap", "clipped_weight_decay"}) {
    CAPTURE(method);
    BareModel model({matrix_info("zero", {4, 6}), matrix_info("broken", {3, 3})}, DType::f32, 1, 0);
    fill(model.store.raw(0), Numbers(24));
    model.store.raw(1).data<float>()[4] = NAN;
    Constraint constraint(model.store, {method, sigma_max, 0.5});
    constraint.apply(model.workers, 0.1, 0, [](const WeightMatrix&) { return std::optional<double>(0.1); });
    CHECK(model.weight(0) == Numbers(24));
    CHECK(std::isnan(model.weight(1)[4]));
  }
}
