// norm.h: the part `norm`: over a token's channels (layer, rms, center, ball), over the batch (batch, moving_average_batch, power, unified),
// or none; each with its Lipschitz constant in evaluation mode.
#pragma once
#include <optional>

#include "layers/linear.h"

enum class NormKind { layer, rms, center, ball, batch, moving_average_batch, power, unified, none };

struct NormPart {
  NormKind kind = NormKind::layer;
  double eps = 1e-5;
  ChannelNorm over_batch{};   // of those over the batch; its method and eps follow from the two above
  double ball_radius = 1;     // RMS of the ball
  bool over_the_batch() const { return kind >= NormKind::batch && kind <= NormKind::unified; }
};

struct Norm {
  std::string name;
  NormPart part{NormKind::none};
  Parameter weight, bias;   // [C], [C]
  ChannelNorm method;
  Buffer running_mean, running_var, ema_gz, buffer_x2, buffer_gz, iters, skip_counter;
  int64_t width = 0;

  Norm() = default;
  Norm(const Scope& scope, int64_t width, const NormPart& part) : name(scope.path()), part(part), width(width) {
    const NormKind kind = part.kind;
    if (kind == NormKind::none || kind == NormKind::ball) return;
    weight = scope.parameter("weight", {width}, ParameterKind::vector, Init::ones());
    if (scope.rules().bias && kind != NormKind::rms) bias = scope.parameter("bias", {width}, ParameterKind::vector, Init::zeros());
    if (part.over_the_batch()) add_state(scope);
  }

  Tensor operator()(const Tensor& x, const Mode& mode) const {
    const LayerRange range(name);
    switch (part.kind) {
      case NormKind::layer: return layer_norm(x, weight(), bias(), part.eps);
      case NormKind::rms: return rms_norm(x, weight(), bias(), part.eps);
      case NormKind::center: return center_norm(x, weight(), bias());
      case NormKind::ball: return ball(x, part.ball_radius);
      case NormKind::none: return x;
      default: return channel_norm(x, weight(), bias(), method, state(), mode.training);
    }
  }

  // Over the batch, in evaluation: y = scale x + shift, a number of each a channel.
  struct ChannelMap {
    std::vector<double> scale, shift;
  };
  ChannelMap channel_map() const {
    check(part.over_the_batch(), "[norm] ", name, " has no constants of its own: its statistics are a token's");
    ChannelMap map{gains(), bias.raw().values()};
    if (!running_mean) return map;
    const std::vector<double> mean = running_mean.raw().values();
    for (size_t c = 0; c < mean.size(); c++) map.shift[c] -= map.scale[c] * mean[c];
    return map;
  }

  // center: D/(D-1) max|w|, a linear map. layer and rms: max|w| / sqrt(eps), reached where a token's variance vanishes; but whatever comes
  // in, what goes out has norm at most max|w| sqrt(D) + |b|. ball: a projection onto a convex set moves no two points apart.
  // Over the batch: in evaluation a constant diagonal map, max_c |w_c| / sqrt(s_c + eps).
  Bound bound(const Domain& in, BoundTrace& trace) const {
    const double root = std::sqrt(double(width));
    if (part.kind == NormKind::none) return Bound::identity(in);
    if (part.kind == NormKind::ball)
      return trace.note(name, "Ball", Bound::tokenwise(1, BoundKind::certified, width, {in.tokens, width, std::min(in.radius, Real(part.ball_radius * root))}));
    const double shift = bias ? l2_norm(bias) : 0;
    if (part.over_the_batch()) {
      const double gain = largest_gain();
      const double centred = running_mean ? mean_shift() : 0;
      return trace.note(name, "BatchNorm", Bound::tokenwise(gain, BoundKind::certified, width, {in.tokens, width, reach(gain, in.radius) + centred + shift}));
    }
    const double gain = max_abs(weight), d = double(width);
    if (part.kind == NormKind::center) {
      const double constant = d / (d - 1) * gain;
      return trace.note(name, "CenterNorm", Bound::tokenwise(constant, BoundKind::certified, width, {in.tokens, width, reach(constant, in.radius) + shift}));
    }
    const Domain out{in.tokens, width, gain * root + shift};
    return trace.note(name, part.kind == NormKind::rms ? "RMSNorm" : "LayerNorm",
                      part.eps > 0 ? Bound::tokenwise(gain / std::sqrt(part.eps), BoundKind::certified, width, out) : Bound::without_bound(name, out));
  }

  // norm(skip x + drop(alpha f)), and the sum itself if it is asked for. Same bound: the residual's, then this norm's.
  Sum after_residual(const Tensor& x, const Tensor& f, const Tensor& alpha, const DropPath& drop, double skip, bool keep_sum, const Mode& mode) const {
    const bool over_token = part.kind == NormKind::layer || part.kind == NormKind::rms || part.kind == NormKind::center;
    const bool fused = over_token && skip == 1 && !(alpha && alpha.size() == 1);
    if (!fused) {
      const Tensor sum = residual(x, f, alpha, drop, skip);
      return {sum, (*this)(sum, mode)};
    }
    const LayerRange range(name);
    const RowNorm kind = part.kind == NormKind::layer ? RowNorm::layer : part.kind == NormKind::rms ? RowNorm::rms : RowNorm::center;
    return residual_norm(x, f, alpha, drop, kind, weight(), bias(), part.eps, keep_sum);
  }

 private:
  void add_state(const Scope& scope) {
    const NormKind kind = part.kind;
    method = part.over_batch;
    method.eps = part.eps;
    method.method = kind == NormKind::batch ? BatchNorm::batch : kind == NormKind::power ? BatchNorm::power
                    : kind == NormKind::unified ? BatchNorm::unified : BatchNorm::moving_average;
    scope.store().batch_statistics = true;
    if (kind == NormKind::batch) running_mean = scope.buffer("running_mean", {width}, 0);
    running_var = scope.buffer("running_var", {width}, 1);
    iters = scope.buffer("iters", {1}, 0);
    if (kind == NormKind::batch) return;
    if (kind != NormKind::moving_average_batch) ema_gz = scope.buffer("ema_gz", {width}, 0);
    if (kind == NormKind::power) return;
    buffer_x2 = scope.buffer("buffer_x2", {method.window_forward, width}, 0);
    buffer_gz = scope.buffer("buffer_gz", {method.window_backward, width}, 0);
    if (kind == NormKind::unified) skip_counter = scope.buffer("skip_counter", {1}, 0);
  }
  ChannelNormState state() const { return {running_mean(), running_var(), ema_gz(), buffer_x2(), buffer_gz(), iters(), skip_counter()}; }

  // w / sqrt(s + eps) of each channel.
  std::vector<double> gains() const {
    std::vector<double> g = weight.raw().values();
    const std::vector<double> s = running_var.raw().values();
    for (size_t c = 0; c < g.size(); c++) g[c] /= std::sqrt(s[c] + part.eps);
    return g;
  }
  double largest_gain() const {
    double most = 0;
    for (const double g : gains()) most = std::max(most, std::abs(g));
    return most;
  }
  double mean_shift() const {
    const std::vector<double> g = gains(), mean = running_mean.raw().values();
    double squares = 0;
    for (size_t c = 0; c < g.size(); c++) squares += g[c] * mean[c] * g[c] * mean[c];
    return std::sqrt(squares);
  }
};

// Where a norm over the batch goes for inference: into all linear maps that read it, or, if others read it too, into the one that it reads.
// Between the norm and its readers tokens may only be moved or averaged.
struct NormFold {
  const Norm* norm;
  std::vector<const Weight*> readers;
  const Weight* source = nullptr;
};
