// optimizers: each rule against its formula written out plainly, and what they share.
#include "tests/train/svd.h"

namespace {

using Numbers = std::vector<double>;

std::vector<ParameterInfo> two_parameters() { return {matrix_info("w", {6, 5}), {"b", {7}, ParameterKind::vector}}; }

// What a rule does to one parameter in one step: w and the state change, g is given.
using Formula = std::function<void(int step, double lr, bool is_matrix, const Numbers& g, Numbers& w, Numbers& m, Numbers& v)>;

void check_rule(const OptimizerOptions& options, const Formula& formula) {
  for (const DType dtype : {DType::f64, DType::f32}) {
    CAPTURE(name_of(dtype));
    BareModel model(two_parameters(), dtype);
    const auto optimizer = make_optimizer(model.store, options);
    Numbers w[2] = {model.weight(0), model.weight(1)}, ema[2] = {w[0], w[1]};
    Numbers m[2] = {Numbers(30), Numbers(7)}, v[2] = {Numbers(30), Numbers(7)};
    for (int step = 1; step <= 5; step++) {
      const double lr = 0.1 / step;
      model.draw_gradients(step);
      const Numbers gradients[2] = {model.gradient(0), model.gradient(1)};
      double squares = 0;
      for (const Numbers& g : gradients)
        for (const double x : g) squares += x * x;
      const double clip = options.clip_grad > 0 ? std::min(1.0, options.clip_grad / (std::sqrt(squares) + 1e-6)) : 1;
      const GradientNorms norms = optimizer->gather(model.workers);
      CHECK(norms.total == doctest::Approx(std::sqrt(squares)).epsilon(1e-6));
      optimizer->update(model.workers, lr, norms);
      for (int p = 0; p < 2; p++) {
        Numbers g = gradients[p];
        for (double& x : g) x *= clip;
        formula(step, lr, p == 0, g, w[p], m[p], v[p]);
        CHECK(largest_difference(model.weight(p), w[p]) < (dtype == DType::f64 ? 1e-13 : 3e-6));
        for (size_t i = 0; i < w[p].size(); i++) ema[p][i] = options.ema_decay * ema[p][i] + (1 - options.ema_decay) * w[p][i];
        if (options.ema_decay > 0)
          CHECK(largest_difference(model.store.slice_of(optimizer->ema, p).values(), ema[p]) < (dtype == DType::f64 ? 1e-13 : 3e-6));
      }
    }
    CHECK(optimizer->steps == 5);
    CHECK(bool(optimizer->ema) == (options.ema_decay > 0));
  }
}

OptimizerOptions options_of(const std::string& name) {
  OptimizerOptions o{.name = name};
  o.weight_decay = 0.3, o.weight_decay_1d = 0.02, o.clip_grad = 4;
  return o;
}

double norm_of(const Numbers& x) {
  double s = 0;
  for (const double v : x) s += v * v;
  return std::sqrt(s);
}

}  // namespace

TEST_CASE("optimizers: adamw") {
  for (const double ema : {0.0, 0.7})
    for (const double clip : {0.0, 4.0}) {
      OptimizerOptions o = options_of("adamw");
      o.ema_decay = ema, o.clip_grad = clip, o.betas = {0.8, 0.95}, o.eps = 1e-3;
      check_rule(o, [&](int step, double lr, bool is_matrix, const Numbers& g, Numbers& w, Numbers& m, Numbers& v) {
        const double decay = is_matrix ? 0.3 : 0.02;
        for (size_t i = 0; i < w.size(); i++) {
          m[i] = 0.8 * m[i] + 0.2 * g[i];
          v[i] = 0.95 * v[i] + 0.05 * g[i] * g[i];
          w[i] = (1 - lr * decay) * w[i] - lr * m[i] / (1 - std::pow(0.8, step)) / (std::sqrt(v[i] / (1 - std::pow(0.95, step))) + 1e-3);
        }
      });
    }
}

TEST_CASE("optimizers: sgd, with momentum, without, by Nesterov") {
  for (const auto& [momentum, nesterov] : {std::pair{0.9, false}, {0.9, true}, {0.0, false}}) {
    OptimizerOptions o = options_of("sgd");
    o.momentum = momentum, o.nesterov = nesterov, o.ema_decay = 0.5;
    check_rule(o, [momentum = momentum, nesterov = nesterov](int, double lr, bool is_matrix, const Numbers& g, Numbers& w, Numbers& m,
                                                             Numbers&) {
      for (size_t i = 0; i < w.size(); i++) {
        const double d = g[i] + (is_matrix ? 0.3 : 0.02) * w[i];
        m[i] = momentum * m[i] + d;
        w[i] -= lr * (nesterov ? d + momentum * m[i] : m[i]);
      }
    });
  }
}

TEST_CASE("optimizers: lars") {
  OptimizerOptions o = options_of("lars");
  o.trust = 0.02, o.eps = 1e-4;
  check_rule(o, [](int, double lr, bool is_matrix, const Numbers& g, Numbers& w, Numbers& m, Numbers&) {
    const double decay = is_matrix ? 0.3 : 0;
    const double local = is_matrix ? lr * 0.02 * norm_of(w) / (norm_of(g) + 0.3 * norm_of(w) + 1e-4) : lr;
    for (size_t i = 0; i < w.size(); i++) {
      m[i] = 0.9 * m[i] + local * (g[i] + decay * w[i]);
      w[i] -= m[i];
    }
  });
  BareModel zero({matrix_info("w", {3, 3})}, DType::f64, 1, 2, 0);   // a weight that begins at zero must be able to leave it
  zero.step(*make_optimizer(zero.store, o), 1, 0.1);
  CHECK(norm_of(zero.weight(0)) > 0.01);
}

TEST_CASE("optimizers: lion") {
  OptimizerOptions o = options_of("lion");
  o.betas = {0.9, 0.99};
  check_rule(o, [](int, double lr, bool is_matrix, const Numbers& g, Numbers& w, Numbers& m, Numbers&) {
    for (size_t i = 0; i < w.size(); i++) {
      const double c = 0.9 * m[i] + 0.1 * g[i];
      w[i] = (1 - lr * (is_matrix ? 0.3 : 0.02)) * w[i] - lr * (c > 0 ? 1 : c < 0 ? -1 : 0);
      m[i] = 0.99 * m[i] + 0.01 * g[i];
    }
  });
  BareModel still({matrix_info("w", {3, 3})}, DType::f64);
  OptimizerOptions no_decay = o;
  no_decay.weight_decay = 0;
  const Numbers before = still.weight(0);
  still.step(*make_optimizer(still.store, no_decay), 1, 0.1, 0);   // the sign of zero is zero
  CHECK(still.weight(0) == before);
}

TEST_CASE("optimizers: threads change nothing, and a run goes on from its state to the bit") {
  for (const std::string name : {"adamw", "sgd", "lars", "lion", "muon"})
    for (const std::string method : {"none", "spectral_normalize", "spectral_soft_cap", "spectral_hammer"}) {
      if (method != "none" && name != "muon" && name != "adamw") continue;
      CAPTURE(name);
      CAPTURE(method);
      OptimizerOptions o = options_of(name);
      o.ema_decay = 0.9, o.constraint.method = method, o.muon.momentum_start = 0.5, o.muon.momentum_steps = 4;
      const std::vector<ParameterInfo> infos{matrix_info("qkv", {36, 20}, 3),
                                             matrix_info("w", {700, 96}),
                                             {"b", {9}, ParameterKind::vector},
                                             {"d", {4, 1, 3, 3}, ParameterKind::depthwise, {}, 5, 5}};
      BareModel whole(infos, DType::f32), parts(infos, DType::f32, 2);
      const auto all = make_optimizer(whole.store, o), first = make_optimizer(parts.store, o);
      for (int step = 0; step < 3; step++) whole.step(*all, step, 0.05);
      for (int step = 0; step < 2; step++) parts.step(*first, step, 0.05);
      const auto second = make_optimizer(parts.store, o);
      for (const auto& [key, to] : second->state()) *to = first->state().at(key)->to(Device{});
      second->ema = first->ema;
      second->steps = first->steps;
      for (int step = 2; step < 3; step++) parts.step(*second, step, 0.05);
      CHECK(whole.store.values().values() == parts.store.values().values());
      CHECK(all->ema.values() == second->ema.values());
      for (const auto& [key, tensor] : all->state()) CHECK(tensor->values() == second->state().at(key)->values());
    }
}

TEST_CASE("optimizers: the average is of the weights as the constraint leaves them") {
  for (const std::string name : {"adamw", "muon"}) {
    OptimizerOptions o = options_of(name);
    o.ema_decay = 0.5, o.constraint.method = "stiefel";
    BareModel model(two_parameters(), DType::f64);
    const auto optimizer = make_optimizer(model.store, o);
    Numbers average = model.store.values().values();
    for (int step = 0; step < 3; step++) {
      model.step(*optimizer, step, 0.5);
      const Numbers w = model.store.values().values();
      for (size_t i = 0; i < w.size(); i++) average[i] = 0.5 * average[i] + 0.5 * w[i];
      CHECK(largest_difference(optimizer->ema.values(), average) < 1e-14);
    }
  }
}

TEST_CASE("optimizers: what does not exist is refused") {
  BareModel model(two_parameters(), DType::f32);
  const auto refusal = [&](const std::function<void(OptimizerOptions&)>& change) {
    OptimizerOptions o = options_of("muon");
    change(o);
    try {
      make_optimizer(model.store, o);
    } catch (const Error& e) {
      CHECK(e.exit == Exit::config);
      return std::string(e.what());
    }
    return std::string("accepted");
  };
  CHECK(refusal([](auto&) {}) == "accepted");
  CHECK(refusal([](auto& o) { o.name = "adam"; }).starts_with("there is no optimizer adam"));
  CHECK(refusal([](auto& o) { o.constraint.method = "soft_cap"; }).starts_with("there is no constraint soft_cap"));
  CHECK(refusal([](auto& o) { o.constraint.method = "stiefel", o.constraint.sigma_max = 0; }).starts_with("constraint.sigma_max must be"));
  CHECK(refusal([](auto& o) { o.constraint.method = "spectral_weight_decay"; }).starts_with("constraint.strength of"));
  CHECK(refusal([](auto& o) { o.muon.coefficients = "muon6"; }).starts_with("there are no orthogonalisation coefficients"));
  CHECK(refusal([](auto& o) { o.muon.scale = "sqrt"; }).starts_with("there is no shape scale sqrt"));
}
