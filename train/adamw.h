// adamw.h: AdamW (Loshchilov and Hutter 2019; torch.optim.AdamW).
#pragma once
#include "train/optimizer.h"

// m = b1 m + (1-b1) g, v = b2 v + (1-b2) g^2, w = (1 - lr wd) w - lr m^ / (sqrt(v^) + eps); g is the gathered gradient, clipped.
class AdamW : public Optimizer {
 public:
  AdamW(ParameterStore& store, const OptimizerOptions& options);
  // Of some parameters only; the gradient norm that is clipped is then that of these.
  AdamW(ParameterStore& store, const OptimizerOptions& options, const std::vector<bool>& parameters);
  std::map<std::string, Tensor*> state() override;
  std::map<std::string, const Packing*> packings() const override;

 protected:
  void step(Workers& workers, double lr, const GradientNorms& norms) override;

 private:
  std::vector<bool> parameters_;
  Packing packing_;
  std::vector<Piece> own_pieces_;
  Tensor m_, v_;   // packed
};
