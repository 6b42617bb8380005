// optimizer.cpp: gather and measure, then the rule, the constraint and the average.
#include "train/optimizer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "engine/comm.h"

#include "train/device_muon.h"

namespace {

constexpr int64_t piece_size = 1 << 16;

template <class T> double sum_of_squares(const T* sum, int64_t n) {
  double squares = 0;
  for (int64_t begin = 0; begin < n; begin += 1024) {   // short runs in T, their sums in double
    T part = 0;
    const int64_t end = std::min(n, begin + 1024);
#pragma omp simd reduction(+ : part)
    for (int64_t i = begin; i < end; i++) part += sum[i] * sum[i];
    squares += double(part);
  }
  return squares;
}

template <class T> void average_with(const T* w, T* ema, T decay, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) ema[i] = decay * ema[i] + (1 - decay) * w[i];
}

}  // namespace

Packing::Packing(const ParameterStore& store, const std::vector<bool>& parameters, const std::vector<bool>& mine)
    : at(store.parameters().size(), -1), whole_at(at) {
  for (size_t p = 0; p < at.size(); p++) {
    if (!parameters[p]) continue;
    const int64_t padded = (store.parameters()[p].size() + 31) / 32 * 32;   // as the flat buffers are laid out
    whole_at[p] = std::exchange(whole_size, whole_size + padded);
    if (mine.empty() || mine[p]) at[p] = std::exchange(size, size + padded);
  }
}

Optimizer::Optimizer(ParameterStore& store, const OptimizerOptions& options) : store_(store), options_(options) {
  pieces_ = pieces_of(mine_of(std::vector<bool>(store.parameters().size(), true)));
  if (options.ema_decay > 0) ema = store.values_in_use().to(store.device());
  if (options.constraint.method != "none") constraint_ = std::make_unique<Constraint>(store, options.constraint);
  averages_in_step_ = !constraint_ && options.mine.empty();
}

std::vector<bool> Optimizer::mine_of(std::vector<bool> parameters) const {
  for (size_t p = 0; p < options_.mine.size(); p++) parameters[p] = parameters[p] && options_.mine[p];
  return parameters;
}

std::vector<Optimizer::Piece> Optimizer::pieces_of(const std::vector<bool>& parameters) const {
  std::vector<Piece> pieces;
  for (size_t p = 0; p < parameters.size(); p++) {
    if (!parameters[p]) continue;
    const ParameterInfo& info = store_.parameters()[p];
    for (int64_t begin = 0; begin < info.size(); begin += piece_size)
      pieces.push_back({int(p), info.offset + begin, info.offset + std::min(info.size(), begin + piece_size)});
  }
  return pieces;
}

std::vector<double> Optimizer::squares(Workers& workers, int shards) {
  std::vector<double> of_pieces(pieces_.size()), of_parameters(store_.parameters().size());
  dispatch(store_.dtype(), [&]<class T>() {
    if constexpr (std::is_same_v<T, bf16>) check(false, "[optimizer] gradients are kept in f32 or f64");
    else
      workers.run(int64_t(pieces_.size()), [&](int64_t i) {
        const Piece& piece = pieces_[i];
        std::vector<T*> parts;
        for (int s = 0; s < shards; s++) parts.push_back(store_.gradient(s).data<T>() + piece.begin);
        add_halves(parts.data(), shards, piece.size());
        of_pieces[i] = sum_of_squares(parts[0], piece.size());
      });
  });
  for (size_t i = 0; i < pieces_.size(); i++) of_parameters[pieces_[i].parameter] += of_pieces[i];
  return of_parameters;
}

GradientNorms Optimizer::norms_of(const std::vector<double>& squares) {
  GradientNorms norms{0, squares};
  for (double& n : norms.parameters) {
    norms.total += n;
    n = std::sqrt(n);
  }
  norms.total = std::sqrt(norms.total);
  return norms;
}

void Optimizer::project(Workers& workers) {
  if (!constraint_ || !constraint_->promises()) return;
  constraint_->enforce(workers);
  store_.host_changed();
}

void Optimizer::update(Workers& workers, double lr, const GradientNorms& norms) {
  if (steps == 0) project(workers);
  steps++;
  step(workers, lr, norms);
  if (store_.device() != Device{}) return;   // its step was all of it
  if (share_weights) share_weights();
  if (constraint_)
    constraint_->apply(workers, lr, lr * options_.weight_decay, [&](const WeightMatrix& m) { return update_norm(m, lr); });
  if (!ema || averages_in_step_) return;
  const std::vector<Piece> all = pieces_of(std::vector<bool>(store_.parameters().size(), true));
  workers.run(int64_t(all.size()), [&](int64_t i) { average(all[i]); });
}

void Optimizer::average(const Piece& piece) {
  dispatch(store_.dtype(), [&]<class T>() {
    average_with(store_.values().data<T>() + piece.begin, ema.data<T>() + piece.begin, T(options_.ema_decay), piece.size());
  });
}

std::map<std::string, Tensor*> Optimizer::state() {
  if (constraint_ && constraint_->vectors) return {{"constraint.vectors", &constraint_->vectors}};
  return {};
}

double Optimizer::clip_factor(double norm) const {
  return options_.clip_grad > 0 ? std::min(1.0, options_.clip_grad / (norm + 1e-6)) : 1;
}

double Optimizer::decay_of(int parameter) const {
  return store_.parameters()[parameter].decays() ? options_.weight_decay : options_.weight_decay_1d;
}

std::unique_ptr<Optimizer> make_optimizer(ParameterStore& store, const OptimizerOptions& options) {
  if (store.device() != Device{}) {   // check_device_recipe has seen that it is one of these
    if (options.name == "muon") return std::make_unique<DeviceMuon>(store, options);
    return std::make_unique<DeviceAdamW>(store, options);
  }
  if (options.name == "adamw") return make_adamw(store, options);
  if (options.name == "sgd") return make_sgd(store, options);
  if (options.name == "lars") return make_lars(store, options);
  if (options.name == "lion") return make_lion(store, options);
  if (options.name == "muon") return make_muon(store, options);
  fail(Exit::config, "there is no optimizer ", options.name, ": choose adamw, sgd, lars, lion or muon");
}
