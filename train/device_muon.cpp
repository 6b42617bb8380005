// device_muon.cpp: all matrices at once, without the host.
#include "train/device_muon.h"

#include "engine/muon_step.h"

namespace {

std::vector<bool> others(std::vector<bool> owned) {
  owned.flip();
  return owned;
}

std::vector<double> updates_of(const ParameterStore& store, const OptimizerOptions& options) {
  std::vector<double> updates;
  for (const WeightMatrix& matrix : weight_matrices(store)) updates.push_back(update_norm_at_1(options, matrix));
  return updates;
}

}  // namespace

DeviceMuon::DeviceMuon(ParameterStore& store, const OptimizerOptions& options)
    : DeviceAdamW(store, options, others(owned_by_muon(store, options.muon)), updates_of(store, options)),
      packing_(store, owned_by_muon(store, options.muon), options.mine) {
  const std::vector<bool> mine = mine_of(owned_by_muon(store, options.muon));
  for (const WeightMatrix& matrix : weight_matrices(store))
    if (mine[size_t(matrix.parameter)]) matrices_.push_back(matrix);
  for (const Quintic& q : coefficients_of(options).steps) quintics_.push_back({q.a, q.b, q.c});
  for (size_t p = 0; p < mine.size(); p++)
    if (mine[p] && store.parameters()[p].kind == ParameterKind::embedding) embeddings_.push_back(int(p));
  averages_in_step_ = false;
  m_ = Tensor::zeros({packing_.size}, store.dtype(), store.device());
}

std::vector<double> DeviceMuon::numbers_of(double lr) const {
  std::vector<double> numbers = DeviceAdamW::numbers_of(lr * options_.muon.adamw_lr);
  numbers[step_matrix_lr] = lr;
  numbers[step_momentum] = momentum_at(options_.muon, steps);
  return numbers;
}

void DeviceMuon::move() {
  DeviceAdamW::move();
  std::vector<MuonStep> of_matrices;
  for (const WeightMatrix& matrix : matrices_) {
    const auto at = [&](const Tensor& flat, int64_t offset) { return flat.slice(offset, matrix.size()).view({matrix.rows, matrix.columns}); };
    const int64_t packed = packing_.at[size_t(matrix.parameter)] + matrix.offset - store_.parameters()[size_t(matrix.parameter)].offset;
    of_matrices.push_back({at(store_.values_in_use(), matrix.offset), at(store_.gradient(0), matrix.offset), at(m_, packed),
                           shape_scale(options_.muon, matrix)});
  }
  muon_step(of_matrices, {options_.muon.nesterov, options_.weight_decay}, quintics_, numbers_);
  for (const int p : embeddings_) {
    const int64_t width = store_.parameters()[size_t(p)].shape[-1], n = store_.parameters()[size_t(p)].size();
    const Shape table{n / width, width};
    muon_rows({store_.slice_of(store_.values_in_use(), p).view(table), store_.slice_of(store_.gradient(0), p).view(table),
               m_.slice(packing_.at[size_t(p)], n).view(table), 1},
              options_.weight_decay_1d, numbers_);
  }
}

std::map<std::string, Tensor*> DeviceMuon::state() {
  std::map<std::string, Tensor*> all = DeviceAdamW::state();
  if (packing_.whole_size > 0) all["muon.m"] = &m_;
  return all;
}

std::map<std::string, const Packing*> DeviceMuon::packings() const {
  std::map<std::string, const Packing*> all = DeviceAdamW::packings();
  if (packing_.whole_size > 0) all["muon.m"] = &packing_;
  return all;
}
