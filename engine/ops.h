// ops.h: the whole differentiable vocabulary. One op, one file in ops/. Tokens are rows, channels are last; weights are stored [out, in].
#pragma once
#include <array>
#include <vector>

#include "engine/autograd.h"
#include "engine/box.h"
#include "engine/random.h"

// --- elementwise ---------------------------------------------------------------------------------------------------------------
Tensor add(const Tensor& a, const Tensor& b);                 // a + b, equal shapes
Tensor multiply(const Tensor& a, const Tensor& b);            // a * b, equal shapes
Tensor scale(const Tensor& x, double factor);                 // factor * x
Tensor add_bias(const Tensor& x, const Tensor& bias);         // x + bias over the last dimension: [..., C] + [C]
Tensor multiply_channels(const Tensor& x, const Tensor& w);   // x * w over the last dimension: [..., C] * [C]
Tensor gelu(const Tensor& x);                                 // x Phi(x), the erf form

// --- products ------------------------------------------------------------------------------------------------------------------
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias);        // x W^T + b: [..., in] -> [..., out]; bias may be empty
Tensor linear_gelu(const Tensor& x, const Tensor& weight, const Tensor& bias);   // gelu(linear(...)) in one pass
Tensor matmul(const Tensor& a, const Tensor& b, bool transpose_b);               // batched: [B, M, K] x [B, K, N] (or [B, N, K]) -> [B, M, N]

// --- rows ----------------------------------------------------------------------------------------------------------------------
Tensor softmax(const Tensor& x);                                                 // over the last dimension
Tensor l2_normalize(const Tensor& x, double eps, bool eps_inside);               // x / sqrt(|x|^2 + eps), or x / max(|x|, eps)
Tensor center_norm(const Tensor& x, const Tensor& weight, const Tensor& bias);   // w * D/(D-1) * (x - mean) + b   (LipsFormer)
Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps);
Tensor mean_tokens(const Tensor& x);                                             // [B, N, C] -> [B, C]

// --- residuals -----------------------------------------------------------------------------------------------------------------
// Stochastic depth: sample b of the batch keeps its branch with probability 1 - rate and then divides it by 1 - rate.
struct DropPath {
  double rate = 0;
  RandomStream stream;
  uint32_t step = 0;
  int64_t first_sample = 0;   // of this tensor's first entry, counted over the whole batch of the step
};
struct Sum { Tensor sum, normalised; };
enum class RowNorm { layer, center };

Tensor residual(const Tensor& x, const Tensor& f, const Tensor& alpha, const DropPath& drop);   // x + drop(alpha * f); alpha [C] may be empty
// s = x + drop(alpha * f) and norm(s) in one pass. With keep_sum = false only the norm is made.
Sum residual_norm(const Tensor& x, const Tensor& f, const Tensor& alpha, const DropPath& drop, RowNorm norm, const Tensor& weight,
                  const Tensor& bias, double eps, bool keep_sum);

// --- images and maps -----------------------------------------------------------------------------------------------------------
// What is still to be done to a batch of raw pixels: normalise, erase, mix. Partner of image i is image count-1-i.
struct PixelPlan {
  std::vector<float> mean, std;        // a channel
  std::vector<Box> erase;              // an image: filled with normal noise
  enum Mix { no_mix, mixup, cutmix } mix = no_mix;
  float lambda = 1;                    // mixup: the share of the image itself
  Box cut;                             // cutmix: the box that comes from the partner
  RandomStream noise;
  uint32_t step = 0;
  int64_t first_sample = 0;            // of image 0, counted over the whole step: the noise depends on nothing else
};
// u8 images [B, H, W, C] -> normalised patch rows [count, (H/P)(W/P), C*P*P] of images first .. first+count-1, channel-major like a conv weight.
Tensor patchify_pixels(const Tensor& images, const PixelPlan& plan, int patch, int64_t first, int64_t count, DType dtype);
Tensor patchify(const Tensor& images, int patch);             // the same rows from normalised images [B, C, H, W]; differentiable
Tensor patch_merge(const Tensor& x);                          // [B, H, W, C] -> [B, H/2 * W/2, 4C], phases (0,0) (1,0) (0,1) (1,1)
Tensor depthwise_conv(const Tensor& x, const Tensor& weight, const Tensor& bias);        // x [B, H, W, C], weight [C, 1, K, K], zero padding K/2, stride 1
Tensor depthwise_conv_gelu(const Tensor& x, const Tensor& weight, const Tensor& bias);   // gelu of it in one pass

// --- attention -----------------------------------------------------------------------------------------------------------------
enum class Similarity {
  dot,              // q k / sqrt(d)
  cosine,           // tau q^ k^ with x^ = x / max(|x|, 1e-12)                     (LipsFormer, released code)
  cosine_bounded,   // nu softmax(tau q^ k^) v^ with x^ = x / sqrt(|x|^2 + eps)    (LipsFormer, paper)
};
struct WindowAttention {
  int heads = 1, window = 7, shift = 0;
  Similarity similarity = Similarity::dot;
  double tau = 10, nu = 1, eps = 1e-6;
};
struct Attended {
  Tensor out;        // [B, H, W, C]
  Tensor entropy;    // [heads] f32: mean over batch, windows and query rows, in nats
};
// Attention inside window x window squares of the map rolled by -shift, with a bias for each pair of relative positions.
// qkv [B, H, W, 3, heads, d] as [B, H, W, 3C]; bias_table [(2w-1)^2, heads] may be empty.
Attended window_attention(const Tensor& qkv, const Tensor& bias_table, const WindowAttention& config);

// --- losses --------------------------------------------------------------------------------------------------------------------
// weight * sum over rows of -sum_k target_k log softmax(logits)_k; f32 logits or f64. targets [B, K] in the logits' dtype.
Tensor cross_entropy(const Tensor& logits, const Tensor& targets, double weight);
