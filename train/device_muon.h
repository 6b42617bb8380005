// device_muon.h: Muon where the model runs on a GPU; everything that is no matrix by AdamW. muon.h has the formulas.
#pragma once
#include "train/device_adamw.h"
#include "train/muon.h"

class DeviceMuon : public DeviceAdamW {
 public:
  DeviceMuon(ParameterStore& store, const OptimizerOptions& options);
  std::map<std::string, Tensor*> state() override;
  std::map<std::string, const Packing*> packings() const override;

 protected:
  void move() override;
  std::vector<double> numbers_of(double lr) const override;

 private:
  const Packing packing_;
  std::vector<WeightMatrix> matrices_;   // this rank's, as are embeddings
  std::vector<int> embeddings_;
  Quintics quintics_;
  Tensor m_;   // packed
};
