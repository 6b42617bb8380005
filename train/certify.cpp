// certify.cpp: certified radii from margins, and projected gradient descent against them.
#include "train/certify.h"

#include <algorithm>
#include <cmath>

namespace {

using Numbers = std::vector<double>;

// Of two logits that are about to be compared: what the forward pass in f64 can have lost, a thousand times over.
double guard(double a, double b) { return 1e-9 * (std::abs(a) + std::abs(b)); }

double length(const double* x, int64_t n) {
  double squares = 0;
  for (int64_t i = 0; i < n; i++) squares += x[i] * x[i];
  return std::sqrt(squares);
}

int64_t best_but(const double* z, int64_t classes, int64_t not_this) {
  int64_t best = not_this == 0 ? 1 : 0;
  for (int64_t j = 0; j < classes; j++)
    if (j != not_this && z[j] > z[best]) best = j;
  return best;
}

ModelBound proved_bound(Training& training) {
  if (training.model->context > 0) fail(Exit::config, "certification is of images; ", training.recipe.model.family, " reads a text");
  training.norms->iterate(training.workers, 100);
  training.certified->measure(training.workers, *training.norms, 1e-4);
  training.spectral->iterate(false);
  return bound_model(training, *training.certified);
}

}  // namespace

Certifier::Certifier(Training& training) : training_(training), bound_(proved_bound(training)) {
  const Model& model = *training.model;
  // Features are one token. No patch moves farther than the image: its RMS by at most the image's length over sqrt(numbers of a patch).
  const Bound& features = bound_.features;
  const Domain in = model.input_domain(1);
  const Real by_tokens = features.rms * std::sqrt(Real(features.out.width) / Real(in.width));
  by_tokens_ = by_tokens < features.lipschitz;
  const std::vector<double>& deviations = training.recipe.augment.std;
  lipschitz_ = double(std::min(by_tokens, features.lipschitz)) / *std::min_element(deviations.begin(), deviations.end()) * (1 + 1e-12);

  const Linear& head = model.classifier();
  const Numbers w = head.weight.matrix().values();
  const double factor = std::abs(head.weight.scalar());
  const int64_t classes = head.out, width = head.in;
  apart_.resize(size_t(classes * classes));
  Numbers difference(size_t(width), 0.0);
  for (int64_t i = 0; i < classes; i++)
    for (int64_t j = 0; j < classes; j++) {
      for (int64_t c = 0; c < width; c++) difference[size_t(c)] = w[size_t(i * width + c)] - w[size_t(j * width + c)];
      apart_[size_t(i * classes + j)] = factor * length(difference.data(), width) * (1 + 1e-10);
    }
}

Tensor Certifier::logits(const Tensor& rows) const { return training_.model->forward(rows, training_.evaluation_mode()); }

double Certifier::pixel_scale(size_t i) const {
  const size_t channels = training_.recipe.augment.std.size(), area = size_t(training_.model->input_patch) * size_t(training_.model->input_patch);
  return training_.recipe.augment.std[i / area % channels];
}

Certifier::Verdict Certifier::judge(const Images& images) const {
  const int64_t classes = training_.model->num_classes;
  const Numbers z = logits(images.rows).values();
  Verdict verdict;
  for (int64_t b = 0; b < images.rows.dim(0); b++) {
    const double* own = z.data() + b * classes;
    const int64_t y = std::max_element(own, own + classes) - own;
    double radius = std::numeric_limits<double>::infinity();
    for (int64_t j = 0; j < classes; j++) {
      if (j == y) continue;
      const double margin = own[y] - own[j] - guard(own[y], own[j]), slope = apart_[size_t(y * classes + j)] * lipschitz_;
      radius = std::min(radius, margin > 0 ? margin / slope * (1 - 1e-12) : 0.0);
    }
    verdict.predicted.push_back(y);
    verdict.radius.push_back(std::isnan(radius) || !bound_.features.bounded() ? 0 : radius);
  }
  return verdict;
}

std::vector<char> Certifier::broken(const Images& images, double radius, int steps, uint64_t seed) const {
  const int64_t samples = images.rows.dim(0), n = images.rows.size() / samples, classes = training_.model->num_classes;
  const Numbers start = images.rows.values();
  const std::vector<double>& mean = training_.recipe.augment.mean;
  const size_t area = size_t(training_.model->input_patch) * size_t(training_.model->input_patch);
  Numbers moved(start.size());   // in pixels
  const RandomStream stream(seed, "attack");
  const auto into_ball = [&](int64_t b) {
    double* d = moved.data() + b * n;
    const double l = length(d, n), factor = l > radius ? radius / l : 1;
    for (int64_t i = 0; i < n; i++) {
      const size_t at = size_t(b * n + i);
      const double scale = pixel_scale(size_t(i)), pixel = start[at] * scale + mean[size_t(i) / area % mean.size()];
      d[i] = std::clamp(pixel + d[i] * factor, 0.0, 1.0) - std::clamp(pixel, 0.0, 1.0);   // nearer to the image, never farther
    }
  };
  for (size_t i = 0; i < moved.size(); i++) moved[i] = normal_from(stream.words(0, i, 0)[0], stream.words(0, i, 0)[1]);
  for (int64_t b = 0; b < samples; b++) {
    const double l = length(moved.data() + b * n, n);
    for (int64_t i = 0; i < n; i++) moved[size_t(b * n + i)] *= 0.5 * radius / l;
    into_ball(b);
  }
  std::vector<char> broken(size_t(samples), 0);
  for (int step = 0; step <= steps; step++) {
    Numbers x = start;
    for (size_t i = 0; i < x.size(); i++) x[i] += moved[i] / pixel_scale(i % size_t(n));
    Tensor in = Tensor::from(images.rows.shape(), x, images.rows.dtype());
    want_grad(in);
    Tape tape;
    Tensor out;
    {
      const TapeScope open(&tape);
      out = logits(in);
    }
    const Numbers z = out.values();
    Numbers away(z.size(), 0.0);
    for (int64_t b = 0; b < samples; b++) {
      const int64_t y = images.labels[size_t(b)];
      if (y < 0) continue;
      const int64_t other = best_but(z.data() + b * classes, classes, y);
      if (z[size_t(b * classes + other)] > z[size_t(b * classes + y)]) broken[size_t(b)] = 1;
      away[size_t(b * classes + other)] = 1, away[size_t(b * classes + y)] = -1;
    }
    if (step == steps) break;
    tape.backward(out, Tensor::from(out.shape(), away, out.dtype()));
    const Tensor gradient = grad_of(in);
    if (!gradient) break;
    Numbers g = gradient.values();
    for (size_t i = 0; i < g.size(); i++) g[i] /= pixel_scale(i % size_t(n));
    for (int64_t b = 0; b < samples; b++) {
      if (broken[size_t(b)]) continue;
      const double l = length(g.data() + b * n, n);
      for (int64_t i = 0; i < n && l > 0; i++) moved[size_t(b * n + i)] += 2.5 * radius / steps * g[size_t(b * n + i)] / l;
      into_ball(b);
    }
  }
  return broken;
}
