// flat.h: what a step does to all parameters at once. Their flat buffers are cut into pieces of even size, so that one launch serves all of
// them, and sums are made of the same pieces in the same order on every device.
#pragma once
#include <functional>
#include <vector>

#include "engine/tensor.h"

// Where a parameter lies in the flat buffers, and where what is remembered of it begins in its own: at the same place, or packed.
struct FlatRange {
  int64_t begin, end, remembered;
  FlatRange(int64_t begin, int64_t end) : FlatRange(begin, end, begin) {}
  FlatRange(int64_t begin, int64_t end, int64_t remembered) : begin(begin), end(end), remembered(remembered) {}
};

class FlatPieces {
 public:
  FlatPieces(const std::vector<FlatRange>& parameters, Device device);

  // squares[p] = sum of g^2 over parameter p, f64 [parameters]; numbers (below) gets the norm of all of g and the factor that clips it.
  // sum_over_ranks(squares): comes between the two where others have the gradients of the parameters that are empty here.
  void measure(const Tensor& gradient, double clip, const Tensor& squares, const Tensor& numbers,
               const std::function<void(const Tensor&)>& sum_over_ranks = {}) const;

  // One step of AdamW (Loshchilov and Hutter 2019) on all parameters, as torch.optim.AdamW computes it with its clipped gradient:
  //   m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2,  w = (1 - lr d_p) w - lr / c1 m / (sqrt(v / c2) + eps),  ema = e ema + (1 - e) w
  // with c = 1 - b^t. Nothing moves if the gradient's norm is not finite. decay: f32 [parameters]; ema may be empty.
  struct AdamW {
    Tensor weights, gradient, m, v, ema, decay;
    double beta1, beta2, eps, ema_decay;
  };
  void adamw(const AdamW& step, const Tensor& numbers) const;

  // Some parameters of a flat buffer beside one another in `packed`, in the order of gather_table(which): what a host wants to see of it.
  Tensor gather_table(const std::vector<int>& which) const;
  void gather(const Tensor& flat, const Tensor& table, const Tensor& packed) const;

 private:
  std::vector<FlatRange> ranges_;
  int64_t pieces_ = 0;
  Tensor bounds_;        // i32 [pieces, 4]: begin, end, parameter, begin in m and v
  Tensor first_piece_;   // i32 [parameters + 1]
  Tensor partial_;       // f64 [pieces]
};

// What a step is given and gives from step to step, f32, on the device so that a captured step finds it there.
enum StepSlot { step_lr, step_correction1, step_correction2, step_grad_norm, step_clip, step_matrix_lr, step_momentum, step_slots };
