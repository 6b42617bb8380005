// soundness: random layers of every kind, and the bound of each against the largest stretch that is found.
#include "soundness.h"

#include "layers/attention.h"
#include "layers/depthwise_conv.h"
#include "layers/mlp.h"
#include "layers/patch_embed.h"
#include "layers/residual.h"
#include "random_attention.h"

using namespace soundness;

namespace {

int64_t few_tokens(Draw& d) { return d.between(1, d.chance(0.3) ? 6 : 2); }

Subject linear(Draw& d) {
  const int64_t in = d.size(), out = d.size(), blocks = d.one_of({1, 1, 2, 3});
  const double factor = d.chance(0.2) ? d.real(0.1, 3) : 1;
  const auto [store, layer] = laid_out(weight_rules(d), [&](const Scope& s) { return Linear(s, in, out * blocks, true, Init{}, factor, {1, blocks}); });
  return {store, {1, few_tokens(d), in}, [layer](const Tensor& x, const Mode&) { return (*layer)(x); },
          [layer](const Domain& in, BoundTrace& trace) { return layer->bound(in, trace); }};
}

Subject linear_with_activation(Draw& d) {
  const int64_t in = d.size(), out = d.size();
  const Activation activation = d.one_of({Activation::gelu, Activation::relu});
  const auto [store, layer] = laid_out(weight_rules(d), [&](const Scope& s) { return Linear(s, in, out); });
  return {store, {1, few_tokens(d), in}, [layer, activation](const Tensor& x, const Mode&) { return layer->with(activation, x); },
          [layer, activation](const Domain& in, BoundTrace& trace) { return layer->with_bound(activation, in, trace); }};
}

Subject pointwise(Draw& d) {
  const int64_t channels = d.size();
  const auto [store, layer] = laid_out(weight_rules(d), [&](const Scope& s) { return Linear::pointwise(s, channels); });
  return {store, {1, d.between(1, 3), d.between(1, 3), channels}, [layer](const Tensor& x, const Mode&) { return layer->with_gelu(x); },
          [layer](const Domain& in, BoundTrace& trace) { return layer->with_gelu_bound(in, trace); }};
}

Subject mlp(Draw& d) {
  const int64_t width = d.size(), hidden = d.size();
  const Activation activation = d.one_of({Activation::gelu, Activation::gelu_scaled, Activation::relu});
  const auto [store, layer] = laid_out(weight_rules(d), [&](const Scope& s) { return Mlp(s, width, hidden, activation); });
  return {store, {1, few_tokens(d), width}, [layer](const Tensor& x, const Mode&) { return (*layer)(x); },
          [layer](const Domain& in, BoundTrace& trace) { return layer->bound(in, trace); }};
}

template <NormKind kind> Subject norm(Draw& d) {
  const int64_t width = kind == NormKind::center ? 1 + d.size() : d.size();
  NormPart part = norm_part(d);
  part.kind = kind;
  const auto [store, layer] = laid_out(weight_rules(d, part), [&](const Scope& s) { return Norm(s, width, part); });
  return {store, {1, few_tokens(d), width}, [layer](const Tensor& x, const Mode& mode) { return (*layer)(x, mode); },
          [layer](const Domain& in, BoundTrace& trace) { return layer->bound(in, trace); }};
}

// A branch of one linear layer, or of an MLP, and every second time a norm behind the sum in the fused form.
template <ResidualPart part> Subject residual(Draw& d) {
  struct Layer {
    Linear linear;
    Mlp mlp;
    ResidualBranch branch;
    Norm norm;
    bool deep, fused;
    Tensor inside(const Tensor& x) const { return deep ? mlp(x) : linear(x); }
    Tensor operator()(const Tensor& x, const Mode& mode) const {
      return fused ? branch.with_norm(norm, x, inside(x), false, mode).normalised : branch(x, inside(x), mode);
    }
    Bound bound(const Domain& in, BoundTrace& trace) const {
      const Bound sum = branch.bound(in, deep ? mlp.bound(in, trace) : linear.bound(in, trace), trace);
      return fused ? then(sum, norm.bound(sum.out, trace)) : sum;
    }
  };
  const int64_t width = 1 + d.size();
  const double start = part == ResidualPart::convex ? d.real(0, 1) : part == ResidualPart::deepnorm ? d.real(1, 4) : 0.5;
  const bool deep = d.chance(0.5), fused = d.chance(0.5);
  const NormPart behind = norm_part(d);
  const auto [store, layer] = laid_out(weight_rules(d, behind), [&](const Scope& s) {
    Layer l{.branch = ResidualBranch(s / "alpha", width, part, start, 0.1), .deep = deep, .fused = fused};
    if (deep) l.mlp = Mlp(s / "mlp", width, width + 2);
    else l.linear = Linear(s / "linear", width, width);
    if (fused) l.norm = Norm(s / "norm", width, behind);
    return l;
  });
  return {store, {1, few_tokens(d), width}, [layer](const Tensor& x, const Mode& mode) { return (*layer)(x, mode); },
          [layer](const Domain& in, BoundTrace& trace) { return layer->bound(in, trace); }};
}

Subject depthwise(Draw& d) {
  const int64_t most = d.chance(0.2) ? 12 : 5, height = d.between(1, most), width = d.between(1, most), kernel = d.one_of({3, 5, 7});
  const int64_t channels = height * width > 40 ? d.between(1, 3) : d.chance(0.05) ? 64 : d.between(1, 8);
  const auto [store, layer] = laid_out(weight_rules(d), [&](const Scope& s) { return DepthwiseConv(s, channels, kernel, height, width); });
  return {store, {1, height, width, channels}, [layer](const Tensor& x, const Mode&) { return layer->with_gelu(x); },
          [layer](const Domain& in, BoundTrace& trace) { return layer->with_gelu_bound(in, trace); }};
}

Subject patch_embed(Draw& d) {
  const int64_t channels = d.between(1, 3), patch = d.between(1, 4), width = 1 + d.size();
  const NormPart behind = norm_part(d);
  const auto [store, layer] = laid_out(weight_rules(d, behind), [&](const Scope& s) { return PatchEmbed(s, channels, width, patch, behind); });
  return {store, {1, few_tokens(d), channels * patch * patch}, [layer](const Tensor& x, const Mode& mode) { return (*layer)(x, mode); },
          [layer](const Domain& in, BoundTrace& trace) { return layer->bound(in, trace); }};
}

Subject patch_merging(Draw& d) {
  const int64_t width = d.chance(0.1) ? d.between(9, 16) : d.between(1, 8);
  const bool bias = d.chance(0.5);
  const NormPart inside = norm_part(d);
  const auto [store, layer] = laid_out(weight_rules(d, inside), [&](const Scope& s) { return PatchMerging(s, width, inside, bias); });
  return {store, {1, 2 * d.between(1, 2), 2 * d.between(1, 2), width}, [layer](const Tensor& x, const Mode& mode) { return (*layer)(x, mode); },
          [layer](const Domain& in, BoundTrace& trace) { return layer->bound(in, trace); }};
}

// Those of T2T-ViT (7/4/2, 3/2/1) and CSwin, and any other.
Subject overlap_conv(Draw& d) {
  const int form = int(d.between(0, 5));
  const int kernel = form == 0 ? 7 : form == 1 ? 3 : int(d.between(1, 7)), stride = form == 0 ? 4 : form == 1 ? 2 : int(d.between(1, 4));
  const int padding = form == 0 ? 2 : form == 1 ? 1 : int(d.between(0, std::min(kernel / 2 + 1, kernel - 1)));
  const int64_t channels = d.between(1, 3), width = 1 + d.size(), side = std::max<int64_t>(d.between(1, d.chance(0.2) ? 12 : 6), kernel - 2 * padding);
  const NormPart behind = norm_part(d);
  const auto [store, layer] =
      laid_out(weight_rules(d, behind),
               [&](const Scope& s) { return OverlapConv(s / "conv", s / "norm", channels, width, side, kernel, stride, padding, behind); });
  return {store, {1, side, side, channels}, [layer](const Tensor& x, const Mode& mode) { return (*layer)(x, mode); },
          [layer](const Domain& in, BoundTrace& trace) { return layer->bound(in, trace); }};
}

Subject attention(Draw& d, const AttentionPart& part, const RandomPlace& r) {
  const auto [store, layer] = laid_out(weight_rules(d), [&](const Scope& s) { return Attention(s, r.width, part, r.place); });
  return {store, {1, r.height, r.columns, r.width}, [layer](const Tensor& x, const Mode& mode) { return (*layer)(x, mode); },
          [layer](const Domain& in, BoundTrace& trace) { return layer->bound(in, trace); }};
}

template <Similarity similarity, bool by_width = false> Subject attention_of(Draw& d) {
  AttentionPart part = attention_part(d);
  part.similarity = similarity;
  part.by_width = by_width;
  return attention(d, part, attention_place(d));
}

Subject striped_attention(Draw& d) {
  AttentionPart part = attention_part(d);
  part.similarity = d.one_of({Similarity::dot, Similarity::cosine_bounded, Similarity::l2});
  return attention(d, part, striped_place(d));
}

const std::vector<Kind> kinds{
    {"linear", linear},
    {"linear with activation", linear_with_activation},
    {"pointwise", pointwise},
    {"mlp", mlp},
    {"norm layer", norm<NormKind::layer>},
    {"norm rms", norm<NormKind::rms>},
    {"norm center", norm<NormKind::center>},
    {"norm ball", norm<NormKind::ball>},
    {"norm batch", norm<NormKind::batch>},
    {"norm moving average batch", norm<NormKind::moving_average_batch>},
    {"norm power", norm<NormKind::power>},
    {"norm unified", norm<NormKind::unified>},
    {"norm none", norm<NormKind::none>},
    {"residual plain", residual<ResidualPart::plain>},
    {"residual weighted", residual<ResidualPart::weighted>},
    {"residual rezero", residual<ResidualPart::rezero>},
    {"residual convex", residual<ResidualPart::convex>},
    {"residual deepnorm", residual<ResidualPart::deepnorm>},
    {"residual admin", residual<ResidualPart::admin>},
    {"depthwise conv", depthwise},
    {"patch embed", patch_embed},
    {"patch merging", patch_merging},
    {"overlap conv", overlap_conv},
    {"attention dot", attention_of<Similarity::dot>},
    {"attention dot by width", attention_of<Similarity::dot, true>},
    {"attention cosine bounded", attention_of<Similarity::cosine_bounded>},
    {"attention cosine", attention_of<Similarity::cosine>},
    {"attention l2", attention_of<Similarity::l2>},
    {"attention in stripes", striped_attention},
};

}  // namespace

TEST_CASE("soundness: no random layer stretches farther than its certified bound") { hold_all(kinds, 290); }

// A kernel that moves the map sideways loses all of a column, and hardly anything of a row.
TEST_CASE("soundness: LePE is bounded on the stripes that it runs over, of both directions") {
  for (const int half : {0, 1}) {
    CAPTURE(half);
    Bench bench;
    const AttentionPlace place{.heads = 2, .window_height = 4, .window_width = 1, .cross_shaped = true, .lepe = true};
    const Attention attention(bench.root / "a", 2, {.separate = true}, place);
    bench.draw(0);
    for (const Linear* l : {&attention.v_proj, &attention.proj}) bench.set(l->weight.raw, {1, 0, 0, 1});
    std::vector<double> kernel(9, 0.0);
    kernel[half == 0 ? 1 : 3] = 100;
    bench.set(attention.lepe[size_t(half)].weight.raw, kernel);
    const Bound bound = attention.bound({16, 2, 1}, bench.measure());
    check_bound(bound, search({1, 4, 4, 2}, 1, [&](const Tensor& x) { return attention(x, Mode{}); }, 50), 0.3);
  }
}
