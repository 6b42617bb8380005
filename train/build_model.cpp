// build_model.cpp: from the words of a recipe to a model.
#include "models/cswin.h"
#include "models/gpt.h"
#include "models/mlp_net.h"
#include "models/swin.h"
#include "models/t2t_vit.h"
#include "models/vit.h"
#include "train/training.h"

namespace {

template <class E> E choice(const std::string& word, std::initializer_list<std::pair<const char*, E>> choices) {
  for (const auto& [name, value] : choices)
    if (word == name) return value;
  check(false, "[recipe] unknown choice ", word);
  return {};
}

NormKind norm_kind(const std::string& word) {
  return choice<NormKind>(word, {{"layer", NormKind::layer}, {"rms", NormKind::rms}, {"center", NormKind::center}, {"ball", NormKind::ball},
                                 {"batch", NormKind::batch}, {"moving_average_batch", NormKind::moving_average_batch},
                                 {"power", NormKind::power}, {"unified", NormKind::unified}, {"none", NormKind::none}});
}

AttentionPart attention_part(const Recipe& recipe) {
  const PartsRecipe& p = recipe.parts;
  AttentionPart a;
  a.similarity = choice<Similarity>(p.attention, {{"dot", Similarity::dot}, {"dot_mup", Similarity::dot}, {"cosine", Similarity::cosine},
                                                  {"cosine_bounded", Similarity::cosine_bounded}, {"l2", Similarity::l2}});
  a.tau = p.tau, a.nu = p.nu, a.eps = p.attention_eps;
  a.by_width = p.attention == "dot_mup";
  a.scale = p.attention_scale;
  a.temperature = p.temperature;
  a.qk_norm = norm_kind(p.qk_norm);
  a.qk_norm_eps = p.norm_eps;
  a.separate = p.qkv == "separate";
  // Muon and the constraints take q, k and v for three matrices, or each of their heads for one.
  const bool split = recipe.optimizer.name == "muon" || recipe.constraint.method != "none";
  const bool heads = recipe.constraint.method != "none" && recipe.constraint.per_head;
  a.groups = !split ? AttentionPart::whole : heads ? AttentionPart::heads : AttentionPart::matrices;
  return a;
}

Parts make_parts(const Recipe& recipe) {
  const PartsRecipe& p = recipe.parts;
  Parts parts;
  parts.norm = {norm_kind(p.norm), p.norm_eps};
  ChannelNorm& batch = parts.norm.over_batch;
  batch.alpha = p.norm_alpha;
  batch.window_forward = batch.window_backward = p.norm_window;
  batch.warmup = p.norm_warmup;
  batch.filter = choice<ChannelNorm::Filter>(p.norm_filter, {{"none", ChannelNorm::no_filter}, {"pooled", ChannelNorm::pooled},
                                                             {"per_channel", ChannelNorm::per_channel}});
  parts.attention = attention_part(recipe);
  parts.residual = choice<ResidualPart>(p.residual, {{"plain", ResidualPart::plain}, {"weighted", ResidualPart::weighted},
                                                     {"layer_scale", ResidualPart::weighted}, {"rezero", ResidualPart::rezero},
                                                     {"convex", ResidualPart::convex}, {"deepnorm", ResidualPart::deepnorm}, {"admin", ResidualPart::admin}});
  parts.layer_scale = p.residual == "layer_scale";
  parts.alpha = p.alpha;
  parts.activation = choice<Activation>(p.activation, {{"gelu", Activation::gelu}, {"gelu_scaled", Activation::gelu_scaled}, {"relu", Activation::relu}});
  parts.weights.bias = recipe.model.bias;
  parts.weights.init.kind = choice<InitRule::Kind>(p.init, {{"trunc_normal", InitRule::trunc_normal}, {"xavier", InitRule::xavier},
                                                            {"spectral", InitRule::spectral}, {"orthogonal", InitRule::orthogonal},
                                                            {"fixup", InitRule::fixup}, {"deepnorm", InitRule::deepnorm}});
  parts.weights.weight = {choice<WeightPart::Kind>(p.weight, {{"plain", WeightPart::plain}, {"sigma_reparam", WeightPart::sigma_reparam},
                                                              {"spectral_norm", WeightPart::spectral_norm}, {"weight_norm", WeightPart::weight_norm}}),
                          p.gamma_init == "sigma"};
  return parts;
}

}  // namespace

std::unique_ptr<Model> build_model(const Recipe& recipe) {
  const ModelRecipe& m = recipe.model;
  const Parts parts = make_parts(recipe);
  const NormPosition position = m.norm_position == "pre" ? NormPosition::pre : NormPosition::post;
  const bool qkv_bias = m.qkv_bias && m.bias;
  const auto common = [&](auto config) {
    config.img_size = m.img_size, config.in_chans = m.in_chans, config.num_classes = m.num_classes, config.embed_dim = m.embed_dim;
    config.parts = parts;
    return config;
  };
  if (m.family == "vit") {
    VitConfig c = common(VitConfig());
    c.patch_size = m.patch_size, c.depth = m.depths.front(), c.num_heads = m.num_heads.front();
    c.mlp_ratio = m.mlp_ratio, c.drop_path_rate = m.drop_path_rate, c.qkv_bias = qkv_bias, c.norm_position = position, c.logit_scale = m.logit_scale;
    c.mean_pool = m.pool == "mean";
    return std::make_unique<Vit>(c);
  }
  if (m.family == "t2t_vit") {
    T2tConfig c = common(T2tConfig());
    c.depth = m.depths.front(), c.num_heads = m.num_heads.front(), c.token_dim = m.token_dim;
    c.mlp_ratio = m.mlp_ratio, c.drop_path_rate = m.drop_path_rate, c.qkv_bias = qkv_bias;
    return std::make_unique<T2tVit>(c);
  }
  if (m.family == "mlp") {
    MlpConfig c = common(MlpConfig());
    c.layers = m.depths.front();
    return std::make_unique<MlpNet>(c);
  }
  if (m.family == "gpt") {
    GptConfig c;
    c.vocab_size = m.vocab_size, c.context = m.context, c.embed_dim = m.embed_dim, c.depth = m.depths.front(), c.num_heads = m.num_heads.front();
    c.mlp_ratio = m.mlp_ratio, c.drop_path_rate = m.drop_path_rate, c.qkv_bias = qkv_bias, c.norm_position = position;
    c.rotary_base = m.rotary_base, c.rotary_still = m.rotary_still, c.logit_scale = m.logit_scale;
    c.parts = parts;
    return std::make_unique<Gpt>(c);
  }
  if (m.family == "cswin") {
    CSwinConfig c = common(CSwinConfig());
    c.depths = m.depths, c.num_heads = m.num_heads, c.stripe_widths = m.stripe_widths;
    c.mlp_ratio = m.mlp_ratio, c.drop_path_rate = m.drop_path_rate, c.qkv_bias = qkv_bias, c.conv_branches = m.conv_branches;
    return std::make_unique<CSwin>(c);
  }
  SwinConfig c = common(SwinConfig());
  c.patch_size = m.patch_size, c.depths = m.depths, c.num_heads = m.num_heads, c.window_size = m.window_size;
  c.mlp_ratio = m.mlp_ratio, c.drop_path_rate = m.drop_path_rate, c.qkv_bias = qkv_bias;
  c.merge_bias = m.merge_bias, c.shift_windows = m.shift_windows, c.conv_branches = m.conv_branches, c.norm_position = position;
  c.logit_scale = m.logit_scale;
  return std::make_unique<Swin>(c);
}
