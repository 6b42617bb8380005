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
Tensor relu(const Tensor& x);                                 // max(x, 0)
// Each number is 0 with chance `rate`, else divided by 1 - rate; a pure function of (stream, step, sample, place in the sample).
Tensor dropout(const Tensor& x, double rate, const RandomStream& stream, StepNumber step, int64_t first_sample);

// --- products ------------------------------------------------------------------------------------------------------------------
// alpha x W^T + b: [..., in] -> [..., out]; bias may be empty. alpha [1], if there, is the scalar of the product, so that no second weight
// is formed; it takes no gradient here.
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& alpha = {});
Tensor linear_gelu(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& alpha = {});   // gelu of it in one pass
struct LinearMap { Tensor weight, bias, alpha; };   // what linear takes
Tensor mlp(const Tensor& x, const LinearMap& first, const LinearMap& second);    // second(gelu(first(x)))
bool fuses_mlp(const Tensor& x, int64_t hidden, int64_t out);                    // where it is more than linear_gelu and linear in a row
Tensor weight_norm(const Tensor& weight, const Tensor& gain);                    // rows gain_r W_r / |W_r|   (Salimans and Kingma 2016)
Tensor matmul(const Tensor& a, const Tensor& b, bool transpose_b);               // batched: [B, M, K] x [B, K, N] (or [B, N, K]) -> [B, M, N]

// --- rows ----------------------------------------------------------------------------------------------------------------------
Tensor softmax(const Tensor& x);                                                 // over the last dimension
Tensor l2_normalize(const Tensor& x, double eps, bool eps_inside);               // x / sqrt(|x|^2 + eps), or x / max(|x|, eps)
Tensor center_norm(const Tensor& x, const Tensor& weight, const Tensor& bias);   // w * D/(D-1) * (x - mean) + b   (LipsFormer)
Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps);   // bias may be empty
Tensor rms_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps);     // w x / sqrt(mean x^2 + eps) + b; bias may be empty
Tensor ball(const Tensor& x, double radius);                                     // x / max(1, RMS(x) / radius): the nearest point of a ball
Tensor mean_tokens(const Tensor& x);                                             // [B, N, C] -> [B, C]

// --- tokens --------------------------------------------------------------------------------------------------------------------
Tensor embedding(const Tensor& tokens, const Tensor& table);                     // i32 [B, T], [V, C] -> table[token] [B, T, C]
Tensor prepend_token(const Tensor& x, const Tensor& token);                      // [B, N, C], [C] -> [B, N + 1, C], the token first
Tensor select_token(const Tensor& x, int64_t index);                             // [B, N, C] -> [B, C]
Tensor slice_channels(const Tensor& x, int64_t begin, int64_t count);            // [..., C] -> [..., count]
// Rotary positions (Su et al. 2021), halves rotated: with half = d/2, (x_i, x_{i+half}) of token t turns by the angle t base^(-i / half).
// `still` of the half frequencies are zero, the slowest ones. x [B, T, heads * d].
Tensor rotary(const Tensor& x, int heads, double base, int still);

// --- residuals -----------------------------------------------------------------------------------------------------------------
// Stochastic depth: sample b of the batch keeps its branch with probability 1 - rate and then divides it by 1 - rate.
struct DropPath {
  double rate = 0;
  RandomStream stream;
  StepNumber step;
  int64_t first_sample = 0;   // of this tensor's first entry, counted over the whole batch of the step
};
// residual(base, linear_gelu(x, ...), alpha, drop, skip) in one pass; base has the shape of the product.
Tensor linear_gelu_residual(const Tensor& base, const Tensor& x, const LinearMap& map, const Tensor& alpha, const DropPath& drop, double skip = 1);
struct Sum { Tensor sum, normalised; };
enum class RowNorm { layer, center, rms };

// skip x + drop(alpha * f); alpha is [C], [1] or empty.
Tensor residual(const Tensor& x, const Tensor& f, const Tensor& alpha, const DropPath& drop, double skip = 1);
// s = x + drop(alpha * f) and norm(s) in one pass. With keep_sum = false only the norm is made. The bias may be empty.
Sum residual_norm(const Tensor& x, const Tensor& f, const Tensor& alpha, const DropPath& drop, RowNorm norm, const Tensor& weight,
                  const Tensor& bias, double eps, bool keep_sum);

// --- images and maps -----------------------------------------------------------------------------------------------------------
// What is still to be done to a batch of raw pixels: normalise, erase, mix (DeiT's order), or mix, rounding to whole numbers, normalise,
// erase (timm's). Partner of image i is image count-1-i.
struct PixelPlan {
  std::vector<float> mean, std;        // a channel
  std::vector<Box> erase;              // `boxes` an image, a later one over those before it; one without height is none
  int boxes = 1;
  enum Fill { per_pixel, per_box, zero } fill = per_pixel;   // normal noise for each value, a normal colour for each box, or 0
  enum Mix { no_mix, mixup, cutmix } mix = no_mix;
  bool mix_first = false;
  float lambda = 1;                    // mixup: the share of the image itself
  Box cut;                             // cutmix: the box that comes from the partner
  RandomStream noise;
  uint32_t step = 0;
  int64_t first_sample = 0;            // of image 0, counted over the whole step: the noise depends on nothing else
  // For a batch of so many images, as bytes for a device: what changes from step to step must lie where a recorded step reads it.
  std::vector<uint8_t> staged(int64_t batch, int64_t channels) const;
};
// u8 images [B, H, W, C] -> normalised patch rows [count, (H/P)(W/P), C*P*P] of images first .. first+count-1, channel-major like a conv weight.
Tensor patchify_pixels(const Tensor& images, const PixelPlan& plan, int patch, int64_t first, int64_t count, DType dtype);
Tensor patchify_pixels(const Tensor& images, const Tensor& staged_plan, int patch, int64_t first, int64_t count, DType dtype);
Tensor patchify(const Tensor& images, int patch);             // the same rows from normalised images [B, C, H, W]; differentiable
Tensor patch_merge(const Tensor& x);                          // [B, H, W, C] -> [B, H/2 * W/2, 4C], phases (0,0) (1,0) (0,1) (1,1)
// Overlapping patches: [B, H, W, C] -> [B, L, C*K*K], L = ((H + 2P - K) / S + 1) * (...), zero padding P; feature c*K*K + ky*K + kx.
Tensor unfold(const Tensor& x, int kernel, int stride, int padding);
Tensor depthwise_conv(const Tensor& x, const Tensor& weight, const Tensor& bias);        // x [B, H, W, C], weight [C, 1, K, K], zero padding K/2, stride 1
Tensor depthwise_conv_gelu(const Tensor& x, const Tensor& weight, const Tensor& bias);   // gelu of it in one pass
// residual(x, depthwise_conv_gelu(x, weight, bias), alpha, drop, skip) in one pass.
Tensor depthwise_conv_gelu_residual(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& alpha, const DropPath& drop, double skip = 1);

// --- norms over the batch ------------------------------------------------------------------------------------------------------
// Statistics of a channel over all rows, smoothed over steps; in evaluation they are constants (Unified
// Normalization, Yang et al. 2022; MABN, Yan et al. 2020; PowerNorm, Shen et al. 2020; BN, Ioffe and Szegedy 2015).
enum class BatchNorm { batch, moving_average, power, unified };   // BN, MABN, PN (without its online pre-scale), UN
struct ChannelNorm {
  BatchNorm method = BatchNorm::unified;
  double eps = 1e-5, alpha = 0.9;        // alpha: what a moving average keeps in a step (torch's momentum is 1 - alpha)
  int window_forward = 4, window_backward = 4, warmup = 4000;   // unified and moving_average; power has no window
  enum Filter { no_filter, pooled, per_channel } filter = no_filter;   // unified: outliers, as released or as written in the paper
};
// What a layer remembers from step to step: f32 or f64, where x is. Written to without a lock: two threads must not train on one state.
// What a method does not use may be empty; evaluation reads running_var and, for `batch`, running_mean only.
struct ChannelNormState {
  Tensor running_mean;      // [C], batch only
  Tensor running_var;       // [C]; second moments for all but batch
  Tensor ema_gz;            // [C], power and unified
  Tensor buffer_x2;         // [M_f, C]
  Tensor buffer_gz;         // [M_b, C]
  Tensor iters;             // [1] training forwards so far
  Tensor skip_counter;      // [1] filtered iterations
};
// weight * (x - mean) / sqrt(second moment + eps) + bias. Training changes the state, forward and backward; evaluation does not.
Tensor channel_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, const ChannelNorm& method, const ChannelNormState& state,
                    bool training);

// --- attention -----------------------------------------------------------------------------------------------------------------
enum class Similarity {
  dot,              // scale q k
  cosine,           // tau q^ k^ with x^ = x / max(|x|, 1e-12)                     (LipsFormer, released code)
  cosine_bounded,   // nu softmax(tau q^ k^) v^ with x^ = x / sqrt(|x|^2 + eps)    (LipsFormer, paper)
  l2,               // -scale |q - k|^2                                            (Kim et al. 2021)
};
struct WindowAttention {
  int heads = 1, window_height = 7, window_width = 7, shift = 0;
  Similarity similarity = Similarity::dot;
  double tau = 10, nu = 1, eps = 1e-6;
  double scale = 0;            // of dot and l2; 0: 1 / sqrt(d)
  double temperature = 1;      // the logits are divided by it
  bool causal = false;         // token i sees 0 .. i of its window only
  bool cross_shaped = false;   // the second half of the heads attends in windows of width x height (CSwin's stripes)
};
// The locally enhanced position of values (CSwin's LePE): a depthwise 3 x 3 convolution of them inside each window, zero padding at its edges.
struct Lepe { Tensor weight, bias; };   // [C', 1, 3, 3], [C']
struct Attended {
  Tensor out;        // [B, H, W, C]
  Tensor entropy;    // [heads] f32: mean over batch, windows and query rows, in nats
};
// Attention inside windows of the map rolled by -shift (square windows only), with a bias for each pair of relative positions. A sequence is
// a map of height 1 with a window of its length. qkv [B, H, W, 3, heads, d] as [B, H, W, 3C]; bias_table [(2wh-1)(2ww-1), heads] may be empty.
// `lepe`, if there, is added to what comes out: of all C channels, or, where windows have two shapes, two of half of them. Nothing is shifted then.
Attended window_attention(const Tensor& qkv, const Tensor& bias_table, const WindowAttention& config, const std::vector<Lepe>& lepe = {});
// The same from three tensors [B, H, W, C]; q and k may be one tensor.
Attended attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& bias_table, const WindowAttention& config,
                   const std::vector<Lepe>& lepe = {});
// Per token q: softmax replaced by positive features (Performer, as in T2T-ViT): exp(x W^T - |x|^2 / 2) / sqrt(m). x [B, T, e], w [m, e].
Tensor performer_features(const Tensor& x, const Tensor& w);
// (q_t . sum_i k_i v_i^T) / (q_t . sum_i k_i + eps): q, k [B, T, m], v [B, T, e] -> [B, T, e].
Tensor linear_attention(const Tensor& q, const Tensor& k, const Tensor& v, double eps);

// --- losses --------------------------------------------------------------------------------------------------------------------
// weight * sum over rows of -sum_k target_k log softmax(logits)_k; f32 logits or f64. targets [B, K] in the logits' dtype.
Tensor cross_entropy(const Tensor& logits, const Tensor& targets, double weight);
// The same from class numbers: i32 [R], logits [R, K]; a label of -1 does not count.
Tensor cross_entropy_labels(const Tensor& logits, const Tensor& labels, double weight);
