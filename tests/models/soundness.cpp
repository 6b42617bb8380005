// soundness: random blocks and whole networks with mixed parts, and the bound of each against the largest stretch that is found.
#include "tests/layers/soundness.h"

#include "models/cswin.h"
#include "models/gpt.h"
#include "models/mlp_net.h"
#include "models/swin.h"
#include "models/t2t_vit.h"
#include "models/vit.h"
#include "tests/layers/random_attention.h"

using namespace soundness;

namespace {

Parts random_parts(Draw& d) {
  Parts parts;
  parts.norm = norm_part(d);
  parts.attention = attention_part(d);
  parts.attention.similarity = d.one_of({Similarity::dot, Similarity::dot, Similarity::cosine_bounded, Similarity::cosine_bounded, Similarity::l2});
  parts.attention.by_width = parts.attention.similarity == Similarity::dot && d.chance(0.3);
  parts.residual = d.one_of({ResidualPart::plain, ResidualPart::weighted, ResidualPart::rezero, ResidualPart::convex, ResidualPart::deepnorm,
                             ResidualPart::admin});
  parts.alpha = d.real(0.1, 0.9);
  parts.activation = d.one_of({Activation::gelu, Activation::gelu_scaled, Activation::relu});
  parts.weights = weight_rules(d, parts.norm);
  return parts;
}

NormPosition random_position(Draw& d) { return d.chance(0.5) ? NormPosition::pre : NormPosition::post; }

template <NormPosition position> Subject block(Draw& d) {
  const Parts parts = random_parts(d);
  const RandomPlace r = attention_place(d);
  const int64_t width = std::max<int64_t>(2 * r.place.heads, r.width), hidden = d.size();   // center norm has no constant on one channel
  const double start = d.real(0.1, 1);
  const auto [store, layer] =
      laid_out(parts.rules(2), [&](const Scope& s) { return TransformerBlock(s, s / "attn", parts, position, r.place, width, hidden, start, 0.1); });
  return {store, {1, r.height, r.columns, width}, [layer](const Tensor& x, const Mode& mode) { return (*layer)(x, mode); },
          [layer](const Domain& in, BoundTrace& trace) { return layer->bound(in, trace); }};
}

Subject conv_branches(Draw& d) {
  const Parts parts = random_parts(d);
  const int64_t width = d.between(1, 6), side = d.between(1, d.chance(0.2) ? 8 : 4);
  const double start = d.real(0.1, 1);
  const auto [store, layer] = laid_out(parts.rules(2), [&](const Scope& s) { return ConvBranches(s, parts, width, side, start, 0.1); });
  return {store, {1, side, side, width}, [layer](const Tensor& x, const Mode& mode) { return (*layer)(x, mode); },
          [layer](const Domain& in, BoundTrace& trace) { return layer->bound(in, trace); }};
}

// From the pixels on.
template <class M, class Config> Subject whole(const Config& config) {
  const auto model = std::make_shared<M>(config);
  const Domain in = model->input_domain(1);
  return {{model, &model->store}, {1, in.tokens, in.width}, [model](const Tensor& x, const Mode& mode) { return model->forward(x, mode); },
          [model](const Domain& domain, BoundTrace& trace) { return model->bound(0, model->stages.size(), domain, trace); }};
}

Subject mlp_net(Draw& d) {
  MlpConfig c;
  c.img_size = int(d.between(1, 4)), c.in_chans = int(d.between(1, 3)), c.num_classes = int(d.size());
  c.embed_dim = int(d.size()), c.layers = int(d.between(1, 4));
  c.parts = random_parts(d);
  return whole<MlpNet>(c);
}

Subject vit(Draw& d) {
  VitConfig c;
  c.patch_size = int(d.between(1, 2)), c.img_size = c.patch_size * int(d.between(1, 3));
  c.in_chans = int(d.between(1, 2)), c.num_classes = int(d.between(1, 5)), c.num_heads = int(d.between(1, 3));
  c.embed_dim = c.num_heads * int(d.between(2, 4)), c.depth = int(d.between(1, 3)), c.mlp_ratio = d.real(1, 3), c.qkv_bias = d.chance(0.7);
  c.logit_scale = d.magnitude(0.3, 3), c.norm_position = random_position(d);
  c.parts = random_parts(d);
  return whole<Vit>(c);
}

// From the embedded tokens on.
Subject gpt(Draw& d) {
  GptConfig c;
  c.vocab_size = int(d.between(2, 8)), c.context = int(d.between(1, 6)), c.num_heads = int(d.between(1, 3));
  c.embed_dim = c.num_heads * 2 * int(d.between(1, 2)), c.depth = int(d.between(1, 3)), c.mlp_ratio = d.real(1, 3), c.qkv_bias = d.chance(0.7);
  c.rotary_base = d.chance(0.8) ? 100 : 0, c.logit_scale = d.magnitude(0.3, 3), c.norm_position = random_position(d);
  c.parts = random_parts(d);
  const auto model = std::make_shared<Gpt>(c);
  const int64_t tokens = c.context, classes = c.vocab_size;
  return {{model, &model->store}, {1, 1, tokens, c.embed_dim},
          [model, tokens, classes](const Tensor& x, const Mode& mode) {
            return model->run(1, model->stages.size(), x, mode).view({x.dim(0), tokens, classes});
          },
          [model](const Domain& in, BoundTrace& trace) { return model->bound(1, model->stages.size(), in, trace); }};
}

template <bool lipsformer> Subject swin(Draw& d) {
  SwinConfig c;
  const bool two = d.chance(0.6);
  c.patch_size = int(d.between(1, 2)), c.img_size = c.patch_size * (two ? 4 : int(d.between(2, 4)));
  c.in_chans = int(d.between(1, 2)), c.num_classes = int(d.between(1, 5));
  const int heads = int(d.between(1, 2));
  c.embed_dim = heads * int(d.between(2, 3)), c.mlp_ratio = d.real(1, 3), c.qkv_bias = d.chance(0.7);
  c.window_size = two || c.img_size / c.patch_size == 4 ? 2 : c.img_size / c.patch_size;
  c.depths = two ? std::vector<int>{int(d.between(1, 2)), 1} : std::vector<int>{int(d.between(1, 2))};
  c.num_heads = two ? std::vector<int>{heads, heads * int(d.between(1, 2))} : std::vector<int>{heads};
  c.shift_windows = !lipsformer, c.conv_branches = lipsformer, c.merge_bias = d.chance(0.5), c.norm_position = random_position(d);
  c.parts = random_parts(d);
  return whole<Swin>(c);
}

template <bool lipsformer> Subject cswin(Draw& d) {
  CSwinConfig c;
  const bool two = d.chance(0.6);
  c.img_size = two ? 16 : 4 * int(d.between(1, 3)), c.in_chans = int(d.between(1, 2)), c.num_classes = int(d.between(1, 5));
  c.embed_dim = 2 * int(d.between(1, 3)), c.mlp_ratio = d.real(1, 3), c.qkv_bias = d.chance(0.7), c.conv_branches = lipsformer;
  c.depths = two ? std::vector<int>{1, int(d.between(1, 2))} : std::vector<int>{1};
  c.num_heads = two ? std::vector<int>{2, 2} : std::vector<int>{2};
  c.stripe_widths = two ? std::vector<int>{int(d.between(1, 2)), 1} : std::vector<int>{1};
  c.parts = random_parts(d);
  return whole<CSwin>(c);
}

// Without a bound always: it must say so.
Subject t2t(Draw& d) {
  T2tConfig c;
  c.img_size = 16, c.in_chans = 1, c.num_classes = 3, c.embed_dim = 4, c.depth = 1, c.num_heads = 2, c.token_dim = 4;
  c.parts = random_parts(d);
  return whole<T2tVit>(c);
}

const std::vector<Kind> kinds{
    {"block pre-norm", block<NormPosition::pre>},
    {"block post-norm", block<NormPosition::post>},
    {"conv branches", conv_branches},
    {"whole mlp", mlp_net},
    {"whole vit", vit},
    {"whole gpt", gpt},
    {"whole swin", swin<false>},
    {"whole lipsformer swin", swin<true>},
    {"whole cswin", cswin<false>},
    {"whole lipsformer cswin", cswin<true>},
    {"whole t2t-vit", t2t},
};

}  // namespace

TEST_CASE("soundness: no random network stretches farther than its certified bound") { hold_all(kinds, 66); }
