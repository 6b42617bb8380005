// stretches.cpp: how far the network and each of its stages are known to stretch what comes in on real samples.
#include "layers/lipschitz/stretch.h"

#include <algorithm>
#include <cmath>

#include "train/model_bounds.h"

namespace {

using Numbers = std::vector<double>;

double largest(const Numbers& x) { return x.empty() ? NAN : *std::max_element(x.begin(), x.end()); }

// Every pixel between black and white.
StretchSearch::Domain pixel_range(const Recipe& recipe, int patch) {
  return [&recipe, patch](Numbers& rows) {   // [..., channels * patch * patch]
    const size_t channels = recipe.augment.mean.size(), area = size_t(patch) * size_t(patch);
    for (size_t i = 0; i < rows.size(); i++) {
      const size_t c = i / area % channels;
      const double mean = recipe.augment.mean[c], deviation = recipe.augment.std[c];
      rows[i] = std::clamp(rows[i], -mean / deviation, (1 - mean) / deviation);
    }
  };
}

// Every token within the ball that the stage's bound is stated for.
StretchSearch::Domain token_ball(int64_t width, double radius) {
  return [width, radius](Numbers& tokens) {
    if (!std::isfinite(radius)) return;
    for (size_t begin = 0; begin < tokens.size(); begin += size_t(width)) {
      double squares = 0;
      for (size_t i = begin; i < begin + size_t(width); i++) squares += tokens[i] * tokens[i];
      const double length = std::sqrt(squares);
      for (size_t i = begin; i < begin + size_t(width) && length > radius; i++) tokens[i] *= radius / length;
    }
  };
}

// Steps in proportion to the inputs: far above the rounding of f32, far below what is worth calling another input.
Numbers search(const Model& model, size_t first, size_t last, const Tensor& x, const StretchSearch::Domain& domain, const Mode& mode) {
  double squares = 0;
  for (const double v : x.values()) squares += v * v;
  const double typical = std::sqrt(squares / double(x.dim(0)));
  StretchSearch ascent([&](const Tensor& in) { return model.run(first, last, in, mode); }, domain, {.step = 3e-3 * typical, .stride = 0.1 * typical});
  return ascent.from(x, mode.seed);
}

}  // namespace

std::vector<double> Training::stretches(const Input& given) {
  const Input batch = given.to(device);
  const int64_t samples = std::min<int64_t>(recipe.ledger.measure_samples, batch.count());
  const size_t stages = model->stages.size(), begin = model->context > 0 ? 1 : 0;
  spectral->iterate(false);
  BoundTrace trace{*norms, {}, temperature};
  std::vector<Domain> domains{model->input_domain(patch_radius(recipe, model->input_patch))};
  for (const Stage& stage : model->stages) domains.push_back(stage.bound(domains.back(), trace).out);
  std::vector<Numbers> found(size_t(samples), Numbers(stages + 1, NAN));
  const auto look_at = [&](int64_t s) {
    const Mode mode = mode_of(Pass::evaluation, 0, 0);
    Tensor x = input_of(batch, s, 1, master_dtype(recipe));
    const StretchSearch::Domain pixels = pixel_range(recipe, model->input_patch);
    for (size_t i = 0; i < stages; i++) {
      const StretchSearch::Domain domain = i == 0 ? pixels : token_ball(x.dim(-1), double(domains[i].radius));
      if (i >= begin) found[size_t(s)][i] = largest(search(*model, i, i + 1, x, domain, mode));
      if (i == begin) found[size_t(s)][stages] = largest(search(*model, i, stages, x, domain, mode));
      x = model->run(i, i + 1, x, mode);
    }
  };
  if (device.kind == Device::cpu) {
    workers.run(samples, look_at);
  } else {
    const ArenaScope memory(arenas_[0].get());
    for (int64_t s = 0; s < samples; s++) look_at(s);
  }
  Numbers most(stages + 1, NAN);
  for (const Numbers& of_sample : found)
    for (size_t i = 0; i <= stages; i++) most[i] = std::fmax(most[i], of_sample[i]);
  return most;
}
