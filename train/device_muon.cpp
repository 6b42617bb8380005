// device_muon.cpp: a matrix at a time, all without the host.
#include "train/device_muon.h"

#include "engine/muon_step.h"

namespace {

std::vector<bool> others(std::vector<bool> owned) {
  owned.flip();
  return owned;
}

}  // namespace

DeviceMuon::DeviceMuon(ParameterStore& store, const OptimizerOptions& options)
    : DeviceAdamW(store, options, others(owned_by_muon(store, options.muon))), packing_(store, owned_by_muon(store, options.muon), {}),
      matrices_(weight_matrices(store)) {
  for (const Quintic& q : coefficients_of(options).steps) quintics_.push_back({q.a, q.b, q.c});
  m_ = Tensor::zeros({packing_.size}, store.dtype(), store.device());
}

std::vector<double> DeviceMuon::numbers_of(double lr) const {
  std::vector<double> numbers = DeviceAdamW::numbers_of(lr * options_.muon.adamw_lr);
  numbers[step_matrix_lr] = lr;
  numbers[step_momentum] = momentum_at(options_.muon, steps);
  return numbers;
}

void DeviceMuon::update_on_device() {
  DeviceAdamW::update_on_device();
  for (const WeightMatrix& matrix : matrices_) {
    const auto at = [&](const Tensor& flat, int64_t offset) { return flat.slice(offset, matrix.size()).view({matrix.rows, matrix.columns}); };
    const int64_t packed = packing_.at[size_t(matrix.parameter)] + matrix.offset - store_.parameters()[size_t(matrix.parameter)].offset;
    muon_step({at(store_.values_in_use(), matrix.offset), at(store_.gradient(0), matrix.offset), at(m_, packed), options_.muon.nesterov,
               shape_scale(options_.muon, matrix), options_.weight_decay},
              quintics_, numbers_);
  }
}

std::map<std::string, Tensor*> DeviceMuon::state() {
  std::map<std::string, Tensor*> all = DeviceAdamW::state();
  if (packing_.size > 0) all["muon.m"] = &m_;
  return all;
}
