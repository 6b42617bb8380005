// adamw.h: AdamW over the flat buffers (Loshchilov and Hutter 2019; torch.optim.AdamW), with clipping and EMA in the same pass.
#pragma once
#include <vector>

#include "engine/workers.h"
#include "layers/parameter.h"

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.98, eps = 1e-8;
  double weight_decay = 0.05;      // of parameters that decay (matrices and convolutions)
  double weight_decay_1d = 5e-4;   // of all others
  double clip_grad = 5.0;          // largest global l2 norm of the gradient; 0: off
  double ema_decay = 0;            // 0: no average is kept
};

// The gradient of a step, summed over shards in their order.
struct GradientNorms {
  double total = 0;                  // l2 norm of all of it
  std::vector<double> parameters;    // of each parameter
};

class AdamW {
 public:
  AdamW(ParameterStore& store, const AdamWOptions& options);
  // Sums the shards' gradients into the first one's buffer and measures them. Changes no weight.
  GradientNorms gather(Workers& workers);
  // m = b1 m + (1-b1) g, v = b2 v + (1-b2) g^2, w = (1 - lr wd) w - lr m^ / (sqrt(v^) + eps); g is the gathered gradient times
  // min(1, clip / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_ has it.
  void update(Workers& workers, double lr, double grad_norm);

  int64_t steps = 0;        // updates so far
  Tensor m, v, ema;         // flat; ema is empty without EMA

 private:
  // A stretch of one parameter: small enough that threads share the work, fixed so that sums never depend on them.
  struct Piece {
    int parameter;
    int64_t begin, end;
  };
  ParameterStore& store_;
  AdamWOptions options_;
  std::vector<Piece> pieces_;
};
