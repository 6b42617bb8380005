// device_adamw.cpp: the numbers of a step go in, its norms come out.
#include "train/device_adamw.h"

#include <cmath>

DeviceAdamW::DeviceAdamW(ParameterStore& store, const OptimizerOptions& options)
    : Optimizer(store, options), flat_(store.ranges(), store.device()) {
  const Device device = store.device();
  std::vector<double> decay;
  for (size_t p = 0; p < store.parameters().size(); p++) decay.push_back(decay_of(int(p)));
  m_ = Tensor::zeros({store.flat_size()}, store.dtype(), device);
  v_ = Tensor::zeros({store.flat_size()}, store.dtype(), device);
  decay_ = Tensor::from(Shape{int64_t(decay.size())}, decay, DType::f32, device);
  squares_ = Tensor::zeros({int64_t(decay.size())}, DType::f64, device);
  numbers_ = Tensor::zeros({step_slots}, DType::f32, device);
}

void DeviceAdamW::put_numbers(double lr, double norm, double clip) {
  std::vector<double> numbers(step_slots, 0.0);
  numbers[step_lr] = lr;
  numbers[step_correction1] = 1 - std::pow(options_.betas[0], double(steps));
  numbers[step_correction2] = 1 - std::pow(options_.betas[1], double(steps));
  numbers[step_grad_norm] = norm;
  numbers[step_clip] = clip;
  numbers_.copy_from(Tensor::from(Shape{step_slots}, numbers, DType::f32));
}

void DeviceAdamW::update_weights() {
  flat_.adamw({store_.values_in_use(), store_.gradient(0), m_, v_, ema, decay_, options_.betas[0], options_.betas[1], options_.eps, options_.ema_decay},
              numbers_);
}

void DeviceAdamW::begin_step(double lr) {
  steps++;
  put_numbers(lr, 0, 1);
}

void DeviceAdamW::update_on_device() {
  flat_.measure(store_.gradient(0), options_.clip_grad, squares_, numbers_);
  update_weights();
}

GradientNorms DeviceAdamW::gather(Workers&) {
  flat_.measure(store_.gradient(0), options_.clip_grad, squares_, numbers_);
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

void DeviceAdamW::step(Workers&, double lr, const GradientNorms& norms) {
  put_numbers(lr, norms.total, clip_factor(norms.total));
  update_weights();
  store_.device_changed();
}

std::map<std::string, Tensor*> DeviceAdamW::state() { return {{"adamw.m", &m_}, {"adamw.v", &v_}}; }
