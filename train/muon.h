// muon.h: Muon (Jordan et al. 2024): matrices move along their orthogonalised momentum, everything else by AdamW.
#pragma once
#include "train/adamw.h"
#include "train/orthogonalize.h"

// For each matrix (a group of rows is a matrix of its own): m = mu m + (1 - mu) g, u = g + mu (m - g) by Nesterov, else m,
// w = (1 - lr wd) w - lr s msign(u), with s the shape scale. No clipping: the step does not know the gradient's size, and a small momentum
// must not be made smaller. With the scale rms, |step|_2 <= lr sqrt(out / in) times the coefficients' peak, whatever the gradient.
std::vector<bool> owned_by_muon(const ParameterStore& store, const MuonOptions& options);   // [parameter]: Muon's, not AdamW's

const Coefficients& coefficients_of(const OptimizerOptions& options);
double momentum_at(const MuonOptions& options, int64_t step);   // of the step of this number, from 1
double shape_scale(const MuonOptions& options, const WeightMatrix& matrix);
// The largest spectral norm that a step of rate 1 can have, in normalised units.
double update_norm_at_1(const OptimizerOptions& options, const WeightMatrix& matrix);

class Muon : public AdamW {
 public:
  Muon(ParameterStore& store, const OptimizerOptions& options);
  std::map<std::string, Tensor*> state() override;
  std::map<std::string, const Packing*> packings() const override;

 protected:
  void step(Workers& workers, double lr, const GradientNorms& norms) override;
  std::optional<double> update_norm(const WeightMatrix& matrix, double lr) const override;

 private:
  template <class T> void move_rows(int parameter, double lr);
  template <class T> void move(const WeightMatrix& matrix, double lr);

  std::vector<bool> owned_;             // [parameter]: Muon's
  Packing packing_;
  std::vector<WeightMatrix> matrices_;
  std::vector<int> embeddings_;
  const Coefficients& coefficients_;
  Tensor m_;                            // packed
};
