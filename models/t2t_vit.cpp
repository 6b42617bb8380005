// t2t_vit.cpp: T2T-ViT, forward and bound side by side.
#include "models/t2t_vit.h"

namespace {
constexpr double performer_eps = 1e-8;
constexpr double token_dropout = 0.1;   // wired into the released token transformer, whatever the other rates
}  // namespace

TokenPerformer::TokenPerformer(const Scope& scope, int64_t in, int64_t width, const NormPart& norm) : name(scope.path()), width(width) {
  features = scope.buffer("w", {width / 2, width}, Init{Init::orthogonal, std::sqrt(double(width / 2))}, true, true);
  kqv = Linear(scope / "kqv", in, 3 * width);
  proj = Linear(scope / "proj", width, width);
  norm1 = Norm(scope / "norm1", in, norm);
  norm2 = Norm(scope / "norm2", width, norm);
  fc1 = Linear(scope / "mlp" / 0, width, width);
  fc2 = Linear(scope / "mlp" / 2, width, width);
}

Tensor TokenPerformer::drop(const Tensor& x, const char* which, const Mode& mode) const {
  if (!mode.random()) return x;
  return dropout(x, token_dropout, RandomStream(mode.seed, name + which), mode.step, mode.first_sample);
}

Tensor TokenPerformer::operator()(const Tensor& x, const Mode& mode) const {
  const Tensor all = kqv(norm1(x, mode));
  const Tensor k = slice_channels(all, 0, width), q = slice_channels(all, width, width), v = slice_channels(all, 2 * width, width);
  Tensor mixed;
  {
    const LayerRange range(name);
    const Tensor w = features();
    mixed = linear_attention(performer_features(q, w), performer_features(k, w), v, performer_eps);
  }
  const Tensor y = add(v, drop(proj(mixed), ".drop", mode));
  return add(y, drop(fc2(fc1.with_gelu(norm2(y, mode))), ".mlp_drop", mode));
}

// exp grows without end and its sums are divided by one another, so the features have no global constant.
Bound TokenPerformer::bound(const Domain& in, BoundTrace& trace) const {
  const Bound first = norm1.bound(in, trace);
  kqv.bound(first.out, trace);
  const Domain out{in.tokens, width};
  proj.bound(out, trace);
  const Bound second = norm2.bound(out, trace);
  fc2.bound(fc1.with_gelu_bound(second.out, trace).out, trace);
  return trace.note(name, "TokenPerformer", Bound::without_bound(name, out));
}

T2tVit::T2tVit(const T2tConfig& config) : config(config) {
  img_size = config.img_size;
  input_patch = 1;
  in_chans = config.in_chans;
  num_classes = config.num_classes;
  if (config.num_heads < 1 || config.embed_dim % config.num_heads != 0)
    fail(Exit::config, "model.embed_dim ", config.embed_dim, " is not a multiple of model.num_heads ", config.num_heads);
  if (config.token_dim < 2 || config.token_dim % 2 != 0) fail(Exit::config, "model.token_dim must be even, given ", config.token_dim);
  const Parts& parts = config.parts;
  const Scope root(store, parts.rules(2 * config.depth)), tokens = root / "tokens_to_token";
  const int64_t width = config.embed_dim, e = config.token_dim;
  attention1 = TokenPerformer(tokens / "attention1", int64_t(in_chans) * 49, e, parts.norm);
  attention2 = TokenPerformer(tokens / "attention2", e * 9, e, parts.norm);
  project = Linear(tokens / "project", e * 9, width);
  int64_t side = img_size;
  for (int i = 0; i < 3; i++) side = split(i).side(side);
  if (side < 1) fail(Exit::config, "nothing is left of an image of ", img_size, " behind the soft splits: change model.img_size");
  const int64_t count = side * side + 1;
  cls_token = root.parameter("cls_token", {1, 1, width}, ParameterKind::embedding, {Init::normal, 0.02});
  pos_embed = root.buffer("pos_embed", {1, count, width}, Init{Init::sinusoid}, true, true);
  const AttentionPlace place{.heads = config.num_heads, .window_height = 1, .window_width = int(count), .qkv_bias = config.qkv_bias};
  add_blocks(root, config, NormPosition::pre, place, 1);
  add_token_stages(count);
  add_stages([](const Tensor& x) { return select_token(x, 0); }, [](const Domain& in, BoundTrace&) { return select_token_bound(in); });
}

// Each soft split is unfolded into the stage behind it.
void T2tVit::add_token_stages(int64_t tokens) {
  int64_t map_side = img_size;
  const auto splitter = [&](int i) {   // [B, side * side, C] -> [B, side'^2, C K K]
    const Split s = split(i);
    const int64_t side = map_side;
    map_side = s.side(side);
    return [s, side](const Tensor& x) { return unfold(x.view({x.dim(0), side, side, x.size() / (x.dim(0) * side * side)}), s.kernel, s.stride, s.padding); };
  };
  // As in OverlapConv: a token lies in at most ceil(K/S)^2 patches, and a patch is at most K times as long as its longest token.
  const auto split_bound = [](const Domain& in, int i, int64_t side) {
    const Split s = split(i);
    const Domain out{s.side(side) * s.side(side), in.width * s.kernel * s.kernel, s.kernel * in.radius};
    return Bound::of(std::ceil(double(s.kernel) / s.stride), BoundKind::certified, out, 1);
  };
  for (int i = 0; i < 2; i++) {
    const TokenPerformer& performer = i == 0 ? attention1 : attention2;
    const int64_t side = map_side;
    stages.push_back({performer.name, [&performer, cut = splitter(i)](const Tensor& x, const Mode& mode) { return performer(cut(x), mode); },
                      [&performer, split_bound, i, side](const Domain& in, BoundTrace& trace) {
                        const Bound cut = split_bound(in, i, side);
                        return then(cut, performer.bound(cut.out, trace));
                      }});
  }
  const int64_t side = map_side, width = config.embed_dim;
  stages.push_back({"tokens_to_token",
                    [this, tokens, width, cut = splitter(2)](const Tensor& x, const Mode&) {
                      const Tensor embedded = prepend_token(project(cut(x)), cls_token().view({width}));   // [B, N + 1, D]
                      return add_bias(embedded.view({x.dim(0), tokens * width}), pos_embed().view({tokens * width})).view({x.dim(0), 1, tokens, width});
                    },
                    [this, split_bound, side, width](const Domain& in, BoundTrace& trace) {
                      const Bound cut = split_bound(in, 2, side);
                      Bound b = then(cut, project.bound(cut.out, trace));
                      b.out.tokens++;
                      // A sinusoid position has length sqrt(D / 2).
                      b.out.radius = std::max(b.out.radius, Real(trace.norms.row_length(cls_token))) + std::sqrt(Real(width) / 2);
                      return b;
                    }});
}

std::vector<NormFold> T2tVit::norm_folds() const {
  std::vector<NormFold> all;
  for (const TokenPerformer* performer : {&attention1, &attention2}) {
    all.push_back({&performer->norm1, {&performer->kqv.weight}});
    all.push_back({&performer->norm2, {&performer->fc1.weight}});
  }
  for (const TransformerBlock& block : blocks) block.add_norm_folds(all);
  all.push_back({&norm, {&head.weight}});
  return all;
}
