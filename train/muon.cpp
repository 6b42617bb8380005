// muon.cpp: which parameters are Muon's, and their step.
#include "train/muon.h"

#include <cmath>

std::vector<bool> owned_by_muon(const ParameterStore& store, const MuonOptions& options) {
  std::vector<bool> owned;
  for (const ParameterInfo& info : store.parameters())
    owned.push_back(info.kind == ParameterKind::matrix || (options.embedding_rows && info.kind == ParameterKind::embedding));
  return owned;
}

namespace {

std::vector<bool> others(std::vector<bool> owned) {
  owned.flip();
  return owned;
}

}  // namespace

Muon::Muon(ParameterStore& store, const OptimizerOptions& options)
    : AdamW(store, options, others(owned_by_muon(store, options.muon))), owned_(owned_by_muon(store, options.muon)),
      packing_(store, owned_, options.mine), coefficients_(coefficients_of(options)) {
  const std::string& scale = options.muon.scale;
  if (scale != "rms" && scale != "original" && scale != "match_adamw")
    fail(Exit::config, "there is no shape scale ", scale, " for muon: choose rms, original or match_adamw");
  const std::vector<bool> mine = mine_of(owned_);
  for (const WeightMatrix& matrix : weight_matrices(store))
    if (mine[matrix.parameter]) matrices_.push_back(matrix);
  for (size_t i = 0; i < owned_.size(); i++)
    if (mine[i] && store.parameters()[i].kind == ParameterKind::embedding) embeddings_.push_back(int(i));
  if (packing_.whole_size) m_ = Tensor::zeros({packing_.size}, store.dtype());
  averages_in_step_ = false;
}

const Coefficients& coefficients_of(const OptimizerOptions& options) {
  if (options.muon.coefficients != "auto") return coefficients_named(options.muon.coefficients);
  return coefficients_named(options.constraint.method == "none" ? "muon5" : "youjiacheng6");
}

double momentum_at(const MuonOptions& o, int64_t step) {
  const double risen = o.momentum_steps > 0 ? std::min(1.0, double(step - 1) / double(o.momentum_steps)) : 1;
  return o.momentum_start + risen * (o.momentum - o.momentum_start);
}

double shape_scale(const MuonOptions& options, const WeightMatrix& m) {
  if (options.scale == "rms") return m.scale();
  if (options.scale == "original") return std::max(1.0, m.scale());
  return 0.2 * std::sqrt(double(std::max(m.rows, m.columns)));
}

// 0.1 % for the rounding of f32; the peaks above 1 stand in the table of coefficients.
double update_norm_at_1(const OptimizerOptions& options, const WeightMatrix& m) {
  const double peak = coefficients_of(options).peak;
  return shape_scale(options.muon, m) / m.scale() * peak * (peak > 1 ? 1.001 : 1);
}

std::optional<double> Muon::update_norm(const WeightMatrix& m, double lr) const {
  if (!owned_[m.parameter]) return std::nullopt;
  return lr * update_norm_at_1(options_, m);
}

template <class T> void Muon::move(const WeightMatrix& matrix, double lr) {
  const int64_t n = matrix.size(), from = matrix.offset - store_.parameters()[matrix.parameter].offset;
  const T* g = store_.gradient(0).data<T>() + matrix.offset;
  T *w = store_.values().data<T>() + matrix.offset, *m = m_.data<T>() + packing_.at[matrix.parameter] + from, *u = scratch<T>(3, n);
  const T mu = T(momentum_at(options_.muon, steps)), keep = T(1 - lr * options_.weight_decay), rate = T(lr * shape_scale(options_.muon, matrix));
  const bool nesterov = options_.muon.nesterov;
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) {
    m[i] = mu * m[i] + (1 - mu) * g[i];
    u[i] = nesterov ? g[i] + mu * (m[i] - g[i]) : m[i];
  }
  orthogonalize(u, matrix.rows, matrix.columns, coefficients_);
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) w[i] = keep * w[i] - rate * u[i];
}

// w = (1 - lr wd) w - lr m_r / RMS(m_r), row by row; a row that was never seen stays where it is.
template <class T> void Muon::move_rows(int parameter, double lr) {
  const ParameterInfo& info = store_.parameters()[parameter];
  const int64_t width = info.shape[-1];
  const T* g = store_.gradient(0).data<T>() + info.offset;
  T *w = store_.values().data<T>() + info.offset, *m = m_.data<T>() + packing_.at[parameter];
  const T mu = T(momentum_at(options_.muon, steps)), keep = T(1 - lr * options_.weight_decay_1d);
  for (int64_t begin = 0; begin < info.size(); begin += width) {
    double squares = 0;
    for (int64_t i = begin; i < begin + width; i++) {
      m[i] = mu * m[i] + (1 - mu) * g[i];
      squares += double(m[i]) * double(m[i]);
    }
    const double rms = std::sqrt(squares / double(width));
    const T rate = rms > 0 ? T(lr / rms) : T(0);
    for (int64_t i = begin; i < begin + width; i++) w[i] = keep * w[i] - rate * m[i];
  }
}

void Muon::step(Workers& workers, double lr, const GradientNorms& norms) {
  AdamW::step(workers, lr * options_.muon.adamw_lr, norms);
  dispatch(store_.dtype(), [&]<class T>() {
    if constexpr (!std::is_same_v<T, bf16>) {
      workers.run(int64_t(matrices_.size()), [&](int64_t i) { move<T>(matrices_[i], lr); });
      for (const int parameter : embeddings_) move_rows<T>(parameter, lr);
    }
  });
}

std::map<std::string, Tensor*> Muon::state() {
  std::map<std::string, Tensor*> all = AdamW::state();
  if (m_) all["muon.m"] = &m_;
  return all;
}

std::map<std::string, const Packing*> Muon::packings() const {
  std::map<std::string, const Packing*> all = AdamW::packings();
  if (m_) all["muon.m"] = &packing_;
  return all;
}

std::unique_ptr<Optimizer> make_muon(ParameterStore& store, const OptimizerOptions& options) {
  return std::make_unique<Muon>(store, options);
}
