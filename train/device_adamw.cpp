// device_adamw.cpp: the numbers of a step go in, its norms come out.
#include "train/device_adamw.h"

#include <cmath>

namespace {

// Those of other ranks (ZeRO-1) are empty.
std::vector<FlatRange> ranges_of(const ParameterStore& store, const std::vector<bool>& parameters, const Packing& packing) {
  std::vector<FlatRange> ranges;
  for (size_t p = 0; p < parameters.size(); p++) {
    const ParameterInfo& info = store.parameters()[p];
    if (parameters[p]) ranges.emplace_back(info.offset, info.offset + (packing.at[p] < 0 ? 0 : info.size()), packing.at[p]);
  }
  return ranges;
}

std::vector<bool> every(const ParameterStore& store) { return std::vector<bool>(store.parameters().size(), true); }

}  // namespace

DeviceAdamW::DeviceAdamW(ParameterStore& store, const OptimizerOptions& options)
    : DeviceAdamW(store, options, every(store), {}) {}

DeviceAdamW::DeviceAdamW(ParameterStore& store, const OptimizerOptions& options, const std::vector<bool>& parameters, const std::vector<double>& updates)
    : Optimizer(store, options), packing_(store, parameters, options.mine),
      all_(ranges_of(store, every(store), Packing(store, every(store), options.mine)), store.device()),
      own_(ranges_of(store, parameters, packing_), store.device()), is_all_(packing_.whole_size == store.flat_size()) {
  const Device device = store.device();
  std::vector<double> decay;
  for (size_t p = 0; p < parameters.size(); p++)
    if (parameters[p]) decay.push_back(decay_of(int(p)));
  m_ = Tensor::zeros({packing_.size}, store.dtype(), device);
  v_ = Tensor::zeros({packing_.size}, store.dtype(), device);
  decay_ = Tensor::from(Shape{int64_t(decay.size())}, decay, DType::f32, device);
  squares_ = Tensor::zeros({int64_t(parameters.size())}, DType::f64, device);
  own_squares_ = Tensor::zeros({int64_t(decay.size())}, DType::f64, device);
  numbers_ = Tensor::zeros({step_slots}, DType::f32, device);
  if (options.constraint.method != "none") on_device_ = std::make_unique<DeviceConstraint>(store, options, updates);
}

std::vector<double> DeviceAdamW::numbers_of(double lr) const {
  std::vector<double> numbers(step_slots, 0.0);
  numbers[step_lr] = numbers[step_matrix_lr] = lr;
  numbers[step_correction1] = 1 - std::pow(options_.betas[0], double(steps));
  numbers[step_correction2] = 1 - std::pow(options_.betas[1], double(steps));
  return numbers;
}

// The clip is of the parameters that are AdamW's, the norm that is looked at afterwards of all.
void DeviceAdamW::measure() {
  const std::function<void(const Tensor&)> of_ranks = options_.mine.empty() ? nullptr : sum_over_ranks;
  if (!is_all_) own_.measure(store_.gradient(0), options_.clip_grad, own_squares_, numbers_, of_ranks);
  const Tensor clip = Tensor::empty({1}, DType::f32, store_.device());
  clip.copy_from(numbers_.slice(step_clip, 1));
  all_.measure(store_.gradient(0), options_.clip_grad, squares_, numbers_, of_ranks);
  if (!is_all_) numbers_.slice(step_clip, 1).copy_from(clip);
}

void DeviceAdamW::move() {
  own_.adamw({store_.values_in_use(), store_.gradient(0), m_, v_, averages_in_step_ ? ema : Tensor(), decay_, options_.betas[0], options_.betas[1],
              options_.eps, options_.ema_decay},
             numbers_);
}

void DeviceAdamW::give_numbers(double lr) {
  numbers_.copy_from(Tensor::from(Shape{step_slots}, numbers_of(lr), DType::f32));
  // Before the first step the host has brought the weights within the constraint, and its vectors nearer.
  const auto of_host = Optimizer::state();
  if (steps == 1 && of_host.contains("constraint.vectors")) on_device_->vectors.copy_from(*of_host.at("constraint.vectors"));
}

void DeviceAdamW::begin_step(double lr) {
  steps++;
  give_numbers(lr);
}

void DeviceAdamW::update_on_device() {
  measure();
  move();
  if (share_weights) share_weights();
  if (on_device_) on_device_->apply(numbers_);
  if (ema && !averages_in_step_) average_weights(store_.values_in_use(), ema, options_.ema_decay, numbers_);
}

GradientNorms DeviceAdamW::gather(Workers&) {
  measure();
  return gradient_norms();
}

GradientNorms DeviceAdamW::gradient_norms() const {
  GradientNorms norms;
  for (const double squares : squares_.values()) {
    norms.parameters.push_back(std::sqrt(squares));
    norms.total += squares;
  }
  norms.total = std::sqrt(norms.total);
  return norms;
}

// After a gather(): Optimizer::update has counted the step.
void DeviceAdamW::step(Workers&, double lr, const GradientNorms&) {
  give_numbers(lr);
  update_on_device();
  store_.device_changed();
}

std::map<std::string, Tensor*> DeviceAdamW::state() {
  std::map<std::string, Tensor*> all;
  if (packing_.whole_size > 0) all = {{"adamw.m", &m_}, {"adamw.v", &v_}};
  if (on_device_ && on_device_->vectors) all["constraint.vectors"] = &on_device_->vectors;
  return all;
}

std::map<std::string, const Packing*> DeviceAdamW::packings() const {
  if (packing_.whole_size == 0) return {};
  return {{"adamw.m", &packing_}, {"adamw.v", &packing_}};
}
