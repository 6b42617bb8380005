// training.cpp: the way of a batch through the model and back. Shards are independent: private tape, arena and gradient buffer.
#include "train/training.h"

#include <omp.h>

#include <algorithm>
#include <cmath>

#include "models/swin.h"

namespace {

template <class E> E choice(const std::string& word, std::initializer_list<std::pair<const char*, E>> choices) {
  for (const auto& [name, value] : choices)
    if (word == name) return value;
  check(false, "[recipe] unknown choice ", word);
  return {};
}

}  // namespace

std::unique_ptr<Model> build_model(const Recipe& recipe) {
  const ModelRecipe& m = recipe.model;
  const PartsRecipe& p = recipe.parts;
  SwinConfig c;
  c.img_size = m.img_size, c.patch_size = m.patch_size, c.in_chans = m.in_chans, c.num_classes = m.num_classes;
  c.embed_dim = m.embed_dim, c.depths = m.depths, c.num_heads = m.num_heads, c.window_size = m.window_size;
  c.mlp_ratio = m.mlp_ratio, c.drop_path_rate = m.drop_path_rate;
  c.shift_windows = m.shift_windows, c.conv_branches = m.conv_branches;
  c.norm_position = m.norm_position == "pre" ? SwinConfig::pre : SwinConfig::post;
  c.norm = choice<NormPart>(p.norm, {{"layer", NormPart::layer}, {"center", NormPart::center}, {"none", NormPart::none}});
  c.norm_eps = p.norm_eps;
  c.attention = {choice<Similarity>(p.attention, {{"dot", Similarity::dot}, {"cosine", Similarity::cosine},
                                                  {"cosine_bounded", Similarity::cosine_bounded}}),
                 p.tau, p.nu, p.attention_eps};
  c.residual = choice<ResidualPart>(p.residual, {{"plain", ResidualPart::plain}, {"weighted", ResidualPart::weighted}});
  c.alpha = p.alpha;
  c.init.kind = choice<InitRule::Kind>(p.init, {{"trunc_normal", InitRule::trunc_normal}, {"xavier", InitRule::xavier},
                                                {"spectral", InitRule::spectral}});
  return std::make_unique<Swin>(c);
}

DType recipe_dtype(const Recipe& recipe) {
  return choice<DType>(recipe.run.dtype, {{"f32", DType::f32}, {"bf16", DType::bf16}, {"f64", DType::f64}});
}

DType master_dtype(const Recipe& recipe) { return recipe_dtype(recipe) == DType::f64 ? DType::f64 : DType::f32; }

int recipe_threads(const Recipe& recipe) { return recipe.run.threads > 0 ? recipe.run.threads : omp_get_num_procs(); }

Input make_input(const Batch& batch, const Recipe& recipe, uint32_t step, int64_t first_sample, bool training) {
  Input input;
  input.pixels = Tensor::from(Shape{batch.count, batch.height, batch.width, batch.channels}, batch.images, DType::u8);
  PixelPlan& plan = input.plan;
  plan.mean.assign(recipe.augment.mean.begin(), recipe.augment.mean.end());
  plan.std.assign(recipe.augment.std.begin(), recipe.augment.std.end());
  const bool erases = std::any_of(batch.erase.begin(), batch.erase.end(), [](const Box& box) { return box.height > 0; });
  if (training && erases) plan.erase = batch.erase;
  if (training && batch.mix.kind == Mix::mixup) plan.mix = PixelPlan::mixup;
  if (training && batch.mix.kind == Mix::cutmix) plan.mix = PixelPlan::cutmix;
  plan.lambda = batch.mix.lambda;
  plan.cut = {batch.mix.top, batch.mix.left, batch.mix.bottom - batch.mix.top, batch.mix.right - batch.mix.left};
  plan.noise = RandomStream(uint64_t(recipe.run.seed), "random_erasing");
  plan.step = step;
  plan.first_sample = first_sample;
  const std::vector<float> targets = soft_targets(batch, recipe.model.num_classes, training ? recipe.augment.label_smoothing : 0);
  input.targets = Tensor::from(Shape{batch.count, recipe.model.num_classes}, targets, recipe_dtype(recipe));
  input.valid = std::count_if(batch.valid.begin(), batch.valid.end(), [](char v) { return v != 0; });
  return input;
}

OptimizerOptions optimizer_options(const Recipe& recipe) {
  const OptimizerRecipe& o = recipe.optimizer;
  OptimizerOptions options{.name = o.name, .betas = o.betas, .eps = o.eps};
  options.weight_decay = o.weight_decay, options.weight_decay_1d = o.weight_decay_1d;
  options.clip_grad = o.clip_grad, options.ema_decay = recipe.ema.decay;
  return options;
}

Training::Training(const Recipe& recipe, bool for_training) : recipe(recipe), model(build_model(recipe)), workers(recipe_threads(recipe)) {
  model->store.finalize(master_dtype(recipe), for_training ? recipe.run.shards : 0, uint64_t(recipe.run.seed));
  norms = std::make_unique<SpectralNorms>(model->store);
  if (for_training) {
    optimizer = make_optimizer(model->store, optimizer_options(recipe));
    optimizer->project(workers);
  }
  for (int s = 0; s < recipe.run.shards; s++) arenas_.push_back(std::make_unique<Arena>());
}

Training::Range Training::shard_range(int64_t count, int shard) const {
  return {count * shard / recipe.run.shards, count * (shard + 1) / recipe.run.shards};
}

// Images a pass inside a shard: as many as keep the widest activation near 5 MB, so that producer and consumer meet in the cache.
// A function of the recipe alone, because it decides the order of sums.
int64_t Training::micro_batch(int64_t in_shard) const {
  if (recipe.run.micro_batch > 0) return std::min<int64_t>(recipe.run.micro_batch, in_shard);
  const int64_t side = recipe.model.img_size / recipe.model.patch_size;
  return std::clamp<int64_t>((5 << 20) / (side * side * recipe.model.embed_dim * 4), 1, std::max<int64_t>(1, in_shard));
}

Tensor Training::patches(const Input& batch, int64_t first, int64_t count) const {
  const int patch = recipe.model.patch_size;
  if (batch.pixels) return patchify_pixels(batch.pixels, batch.plan, patch, first, count, recipe_dtype(recipe));
  return patchify(batch.images.slice(first, count), patch);
}

double Training::run_shard(const Input& batch, int shard, double weight, const Mode& mode, EntropySums& entropies) {
  const ArenaScope memory(arenas_[shard].get());
  const ShardScope gradients(shard);
  const auto [begin, end] = shard_range(batch.count(), shard);
  const int64_t micro = micro_batch(end - begin);
  double loss = 0;
  for (int64_t first = begin; first < end; first += micro) {
    const int64_t count = std::min(micro, end - first);
    Mode part = mode;
    part.first_sample += first;
    part.entropies = &entropies;
    entropies.samples += double(count);
    Tape tape;
    const TapeScope open(&tape);
    const Tensor logits = model->forward(patches(batch, first, count), part);
    const Tensor mean = cross_entropy(logits, batch.targets.slice(first, count), weight);
    loss += mean.item();
    tape.backward(mean);
  }
  return loss;
}

StepResult Training::gradients(const std::vector<Input>& batches, uint32_t step, bool random_parts) {
  const int shards = recipe.run.shards;
  StepResult result;
  std::vector<double> losses(shards);
  std::vector<EntropySums> entropies(shards);
  std::vector<std::map<std::string, OpCost>> costs(shards);
  workers.run(shards, [&](int64_t s) {
    std::unique_ptr<Profile> watch = profile ? std::make_unique<Profile>() : nullptr;
    entropies[s].sums.assign(model->heads(), 0);
    model->store.begin_gradients(int(s));
    int64_t seen = 0;
    for (const Input& batch : batches) {
      Mode mode{.training = random_parts, .checkpoint_activations = recipe.run.checkpoint_activations,
                .seed = uint64_t(recipe.run.seed), .step = step, .first_sample = seen};
      seen += batch.count();
      const double weight = 1.0 / (double(std::max<int64_t>(1, batch.valid)) * double(batches.size()));
      losses[s] += run_shard(batch, int(s), weight, mode, entropies[s]);
    }
    model->store.end_gradients(int(s));
    if (watch) costs[s] = std::move(watch->table);
  });
  result.entropies.sums.assign(model->heads(), 0);
  for (int s = 0; s < shards; s++) {
    result.loss += losses[s];
    result.entropies.samples += entropies[s].samples;
    for (size_t h = 0; h < result.entropies.sums.size(); h++) result.entropies.sums[h] += entropies[s].sums[h];
    for (const auto& [op, cost] : costs[s]) {
      OpCost& total = (*profile)[op];
      total.seconds += cost.seconds;
      total.calls += cost.calls;
      total.macs += cost.macs;
    }
  }
  for (const Input& batch : batches) result.images += batch.count();
  result.gradient = optimizer->gather(workers);
  return result;
}

NonFinite Training::first_non_finite(const std::vector<Input>& batches, uint32_t step) {
  const ParameterStore& store = model->store;
  for (size_t i = 0; i < store.parameters().size(); i++)
    if (!all_finite(store.raw(int(i)))) return {"weight", store.parameters()[i].name, "weight"};
  int64_t seen = 0;
  for (const Input& batch : batches) {
    for (int s = 0; s < recipe.run.shards; s++) {
      const NonFiniteWatch watch;
      EntropySums entropies{std::vector<double>(model->heads()), 0};
      model->store.begin_gradients(s);
      const Mode mode{.training = true, .seed = uint64_t(recipe.run.seed), .step = step, .first_sample = seen};
      run_shard(batch, s, 1.0 / double(std::max<int64_t>(1, batch.valid)), mode, entropies);
      if (watch.found()) return *watch.found();
    }
    seen += batch.count();
  }
  return {"sum over the batch", "", "gradient"};
}

void Training::evaluate(const Input& batch, EvalResult& sums, Tensor* logits) {
  const int64_t classes = model->num_classes, top = std::min<int64_t>(5, classes);
  if (logits) *logits = Tensor::empty({batch.count(), classes}, DType::f32);
  std::vector<EvalResult> parts(recipe.run.shards);
  workers.run(recipe.run.shards, [&](int64_t s) {
    const ArenaScope memory(arenas_[s].get());
    const auto [begin, end] = shard_range(batch.count(), int(s));
    const int64_t micro = micro_batch(end - begin);
    for (int64_t first = begin; first < end; first += micro) {
      const int64_t count = std::min(micro, end - first);
      const Tensor out = model->forward(patches(batch, first, count), Mode{});
      const Tensor targets = batch.targets.slice(first, count);
      parts[s].loss += cross_entropy(out, targets, 1).item();
      const std::vector<double> x = out.values(), t = targets.values();
      for (int64_t i = 0; i < count; i++) {
        const double *row = x.data() + i * classes, *target = t.data() + i * classes;
        if (logits) std::copy(row, row + classes, logits->data<float>() + (first + i) * classes);
        const int64_t label = std::max_element(target, target + classes) - target;
        if (target[label] == 0) continue;   // a damaged image
        // Ties and NaN count against the model.
        const int64_t above = std::count_if(row, row + classes, [&](const double& v) { return &v != row + label && !(v < row[label]); });
        parts[s].images++;
        parts[s].top1 += above < 1;
        parts[s].top5 += above < top;
      }
    }
  });
  for (const EvalResult& part : parts) {
    sums.loss += part.loss;
    sums.top1 += part.top1;
    sums.top5 += part.top5;
    sums.images += part.images;
  }
}

size_t Training::arena_bytes() const {
  size_t bytes = 0;
  for (const auto& arena : arenas_) bytes += arena->peak_bytes();
  return bytes;
}
