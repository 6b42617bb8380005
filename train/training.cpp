// training.cpp: the way of a batch through the model and back. Shards are independent: private tape, arena and gradient buffer.
#include "train/training.h"

#include <omp.h>

#include <algorithm>
#include <cmath>

#include "engine/between_nodes.h"
#include "engine/blas.h"
#include "engine/comm_launch.h"
#include "train/device_step.h"

DType recipe_dtype(const Recipe& recipe) {
  return recipe.run.dtype == "f64" ? DType::f64 : recipe.run.dtype == "bf16" ? DType::bf16 : DType::f32;
}

DType master_dtype(const Recipe& recipe) { return recipe_dtype(recipe) == DType::f64 ? DType::f64 : DType::f32; }

int recipe_threads(const Recipe& recipe) { return recipe.run.threads > 0 ? recipe.run.threads : omp_get_num_procs(); }

Input make_input(const Batch& batch, const Recipe& recipe, uint32_t step, int64_t first_sample, bool training) {
  Input input;
  if (!batch.tokens.empty()) {
    const Shape shape{batch.count, int64_t(batch.tokens.size()) / batch.count};
    input.tokens = Tensor::from(shape, batch.tokens, DType::i32);
    input.labels = Tensor::from(shape, batch.next_tokens, DType::i32);
    input.valid = std::count_if(batch.next_tokens.begin(), batch.next_tokens.end(), [](int label) { return label >= 0; });
    return input;
  }
  input.pixels = Tensor::from(Shape{batch.count, batch.height, batch.width, batch.channels}, batch.images, DType::u8);
  PixelPlan& plan = input.plan;
  plan.mean.assign(recipe.augment.mean.begin(), recipe.augment.mean.end());
  plan.std.assign(recipe.augment.std.begin(), recipe.augment.std.end());
  const bool erases = std::any_of(batch.erase.begin(), batch.erase.end(), [](const Box& box) { return box.height > 0; });
  if (training && erases) plan.erase = batch.erase;
  plan.boxes = std::max(1, int(batch.erase.size()) / batch.count);
  const std::string& fill = recipe.augment.erasing_mode;
  plan.fill = fill == "const" ? PixelPlan::zero : fill == "rand" ? PixelPlan::per_box : PixelPlan::per_pixel;
  plan.mix_first = recipe.augment.mix_order == "timm";
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

Input Input::to(Device device) const {
  if (device.kind == Device::cpu) return *this;
  Input there = *this;
  for (Tensor* tensor : {&there.pixels, &there.images, &there.targets, &there.tokens, &there.labels})
    if (*tensor) *tensor = tensor->to(device);
  return there;
}

OptimizerOptions optimizer_options(const Recipe& recipe) {
  const OptimizerRecipe& o = recipe.optimizer;
  OptimizerOptions options{.name = o.name, .betas = o.betas, .eps = o.eps, .momentum = o.momentum, .nesterov = o.nesterov,
                           .trust = o.trust_coefficient, .weight_decay = o.weight_decay, .weight_decay_1d = o.weight_decay_1d,
                           .clip_grad = o.clip_grad, .ema_decay = recipe.ema.decay};
  options.muon = {.momentum = o.momentum, .nesterov = o.nesterov, .momentum_start = o.momentum_steps > 0 ? o.momentum_start : o.momentum,
                  .momentum_steps = o.momentum_steps, .coefficients = o.coefficients,
                  .scale = o.update_scale, .embedding_rows = o.embedding == "rows", .adamw_lr = o.adamw_lr};
  options.constraint = {.method = recipe.constraint.method, .sigma_max = recipe.constraint.sigma_max, .strength = recipe.constraint.strength};
  return options;
}

Device recipe_device(const Recipe& recipe) {
  if (recipe.run.device == "cpu") return {};
  return {Device::cuda, cuda_is_real() ? launch_of_environment().local_rank : 0};
}

namespace {

// A GPU takes the batch as one piece.
Recipe on_its_device(Recipe recipe) {
  if (recipe_device(recipe).kind == Device::cuda) recipe.run.shards = 1;
  return recipe;
}

}  // namespace

Training::Training(const Recipe& given, bool for_training, std::shared_ptr<Communicator> comm)
    : recipe(on_its_device(given)), model(build_model(recipe)), workers(recipe_threads(recipe)), device(recipe_device(recipe)) {
  if (device.kind == Device::cuda) check_device_recipe(recipe);
  allow_tf32() = recipe.run.dtype == "tf32";
  model->store.finalize(master_dtype(recipe), for_training ? recipe.run.shards : 0, uint64_t(recipe.run.seed), device);
  norms = std::make_unique<SpectralNorms>(model->store);
  certified = std::make_unique<CertifiedNorms>(model->store);
  spectral = std::make_unique<SpectralWeights>(model->store);
  spectral->start(workers);
  temperature = for_training ? 1 : recipe.schedule.temperature;
  OptimizerOptions options = optimizer_options(recipe);
  parallel = std::make_unique<DataParallel>(std::move(comm), model->store, options, recipe.run.zero > 0);
  if (for_training) {
    if (!parallel->owners().empty()) options.mine = parallel->mine();
    optimizer = make_optimizer(model->store, options);
    optimizer->share_weights = [this] { parallel->share_weights(); };
    optimizer->sum_over_ranks = [this](const Tensor& x) { parallel->add_up(x, "the squares of the gradient"); };
    optimizer->project(workers);
  }
  for (int s = 0; s < recipe.run.shards; s++) arenas_.push_back(std::make_unique<Arena>(device));
  if (for_training && device.kind == Device::cuda && parallel->size() > 1) {
    device_comm_ = device_communicator(parallel->comm(), device, recipe.run.comm_timeout);
    parallel->move_to(device_comm_ ? *device_comm_ : parallel->comm());
  }
  if (for_training && device.kind == Device::cuda) device_step_ = std::make_unique<DeviceStep>(*this);
}

Training::~Training() = default;

StepResult Training::step(const std::vector<Input>& batches, uint32_t number, double lr, const std::function<void(const StepResult&)>& between,
                          const std::function<void()>& meanwhile) {
  if (device_step_) return device_step_->run(batches, number, lr, between, meanwhile);
  const StepResult result = gradients(batches, number);
  between(result);
  optimizer->update(workers, lr, result.gradient);
  return result;
}

void Training::send_ahead(const std::vector<Input>& batches) {
  if (device_step_) device_step_->send(batches);
}

Training::Range Training::shard_range(int64_t count, int shard) const {
  return {count * shard / recipe.run.shards, count * (shard + 1) / recipe.run.shards};
}

// What is left out for the randomness of a step: nothing, or its random parts, or all that is training.
Mode Training::mode_of(Pass pass, uint32_t step, int64_t first_sample) const {
  return {.training = pass != Pass::evaluation, .deterministic = pass == Pass::deterministic,
          .checkpoint_activations = recipe.run.checkpoint_activations, .seed = uint64_t(recipe.run.seed), .step = step,
          .first_sample = first_sample, .temperature = temperature};
}

// Images a pass inside a shard: as many as keep the widest activation near 5 MB, so that producer and consumer meet in the cache.
// A function of the recipe alone, because it decides the order of sums.
int64_t Training::micro_batch(int64_t in_shard, Pass pass) const {
  const int64_t whole = std::max<int64_t>(1, in_shard);
  if (model->store.batch_statistics && pass != Pass::evaluation) return whole;
  if (device.kind == Device::cuda && recipe.run.micro_batch == 0) return whole;
  if (recipe.run.micro_batch > 0) return std::min<int64_t>(recipe.run.micro_batch, whole);
  return std::clamp<int64_t>((5 << 20) / (model->widest_activation() * 4), 1, whole);
}

Tensor Training::input_of(const Input& batch, int64_t first, int64_t count, std::optional<DType> dtype) const {
  if (batch.tokens) return batch.tokens.slice(first, count);
  const int patch = model->input_patch;
  if (batch.staged_plan) return patchify_pixels(batch.pixels, batch.staged_plan, patch, first, count, dtype.value_or(recipe_dtype(recipe)));
  if (batch.pixels) return patchify_pixels(batch.pixels, batch.plan, patch, first, count, dtype.value_or(recipe_dtype(recipe)));
  return patchify(batch.images.slice(first, count), patch);
}

// weight * the sum of the losses of samples first .. first+count-1; of a text, of all its positions.
Tensor Training::loss_of(const Tensor& logits, const Input& batch, int64_t first, int64_t count, double weight) const {
  if (!batch.tokens) return cross_entropy(logits, batch.targets.slice(first, count), weight);
  return cross_entropy_labels(logits, batch.labels.slice(first, count).view({logits.dim(0)}), weight);
}

double Training::run_shard(const Input& batch, int shard, double weight, Pass pass, const Mode& mode, EntropySums& entropies, bool last) {
  const ArenaScope memory(arenas_[shard].get());
  const ShardScope gradients(shard);
  const auto [begin, end] = shard_range(batch.count(), shard);
  const int64_t micro = micro_batch(end - begin, pass);
  double loss = 0;
  for (int64_t first = begin; first < end; first += micro) {
    const int64_t count = std::min(micro, end - first);
    Mode part = mode;
    part.first_sample += first;
    part.entropies = &entropies;
    entropies.samples += double(count);
    Tape tape;
    const TapeScope open(&tape);
    const Tensor mean = loss_of(model->forward(input_of(batch, first, count), part), batch, first, count, weight);
    loss += mean.item();
    // A weight that is made of others first is pulled back when all is there; its gradient is not final before.
    std::optional<BetweenNodes> watch;
    if (last && end == first + count && parallel->buckets && model->store.spectral_weights.empty()) watch.emplace([&] { parallel->buckets->look(shard); });
    tape.backward(mean);
  }
  return loss;
}

StepResult Training::gradients(const std::vector<Input>& given, uint32_t step, Pass pass) {
  std::vector<Input> batches;
  for (const Input& batch : given) batches.push_back(batch.to(device));
  const int shards = recipe.run.shards;
  StepResult result;
  std::vector<double> losses(shards);
  std::vector<EntropySums> entropies(shards);
  std::vector<std::map<std::string, OpCost>> costs(shards);
  spectral->iterate(pass != Pass::evaluation);
  parallel->share_buffers();
  model->store.share_buffers();
  std::vector<double> valid;
  for (const Input& batch : batches) valid.push_back(double(batch.valid));
  valid = parallel->gather(valid, "the samples that count");
  const int ranks = parallel->size();
  if (parallel->buckets) parallel->buckets->begin();
  workers.run(shards, [&](int64_t s) {
    std::unique_ptr<Profile> watch = profile ? std::make_unique<Profile>() : nullptr;
    entropies[s] = no_entropies();
    model->store.begin_gradients(int(s));
    int64_t seen = 0;
    for (size_t b = 0; b < batches.size(); b++) {
      const int64_t count = batches[b].count();
      const Mode mode = mode_of(pass, step, seen + parallel->rank() * count);
      seen += count * ranks;
      double all_valid = 0;
      for (int r = 0; r < ranks; r++) all_valid += valid[r * batches.size() + b];
      const double weight = 1.0 / (std::max(1.0, all_valid) * double(batches.size()));
      losses[s] += run_shard(batches[b], int(s), weight, pass, mode, entropies[s], b + 1 == batches.size());
    }
    model->store.end_gradients(int(s));
    if (watch) costs[s] = std::move(watch->table);
  });
  add_shards(result, losses, entropies);
  add_costs(costs);
  for (const Input& batch : batches) result.images += batch.count() * ranks;
  // The way back to W and gamma is linear, so each shard's gradient takes it alone.
  for (int s = 0; s < shards; s++) spectral->pull_back(model->store.gradient(s));
  model->store.device_changed_buffers();
  if (parallel->buckets) parallel->buckets->finish();
  if (device.kind == Device::cuda) {
    result.gradient = optimizer->gather(workers);
    return result;
  }
  std::vector<double> squares = optimizer->squares(workers, parallel->buckets ? 1 : shards);
  parallel->share(squares, "the gradient's norms");
  result.gradient = Optimizer::norms_of(squares);
  return result;
}

void Training::dry_step(const Input& batch) {
  check(recipe.run.shards == 1, "[dry_step] one shard expected, the recipe has ", recipe.run.shards);
  spectral->iterate(true);
  const DryRun dry;
  EntropySums entropies = no_entropies();
  model->store.begin_gradients(0);
  run_shard(batch, 0, 1, Pass::training, mode_of(Pass::training, 0, 0), entropies);
}

void Training::add_shards(StepResult& result, const std::vector<double>& losses, const std::vector<EntropySums>& entropies) {
  std::vector<double> numbers;
  for (size_t s = 0; s < losses.size(); s++) {
    numbers.push_back(losses[s]);
    numbers.push_back(entropies[s].samples);
    numbers.insert(numbers.end(), entropies[s].sums.begin(), entropies[s].sums.end());
    for (const InputSquares& input : entropies[s].inputs) numbers.insert(numbers.end(), {input.sample, input.token});
  }
  numbers = parallel->gather(numbers, "the loss and the entropies");
  result.entropies = no_entropies();
  for (auto number = numbers.begin(); number != numbers.end();) {
    EntropySums shard = no_entropies();
    result.loss += *number++;
    shard.samples = *number++;
    for (double& sum : shard.sums) sum = *number++;
    for (InputSquares& input : shard.inputs) {
      input.sample = *number++;
      input.token = *number++;
    }
    result.entropies.add(shard);
  }
}

void Training::add_costs(const std::vector<std::map<std::string, OpCost>>& shards) {
  for (const auto& costs : shards)
    for (const auto& [op, cost] : costs) (*profile)[op].add(cost);
}

// Liu et al. 2020: one forward with omega = 1, nothing dropped, then omega_l = sqrt(sum_{k<l} Var F_k), the input of the first branch counted as
// a branch before all others whose variance is 1: so the first omega is 1, and all are at least that.
void Training::initialise_admin(const Input& batch) {
  if (recipe.parts.residual != "admin") return;
  std::vector<double> variances;
  Mode mode = mode_of(Pass::evaluation, 0, 0);
  mode.checkpoint_activations = false;
  mode.branch_variances = &variances;
  spectral->iterate(false);
  model->forward(input_of(batch, 0, batch.count()), mode);
  const std::vector<const ResidualBranch*> branches = model->branches();
  check(variances.size() == branches.size(), "[admin] a forward added ", variances.size(), " branches of ", branches.size());
  variances = parallel->gather(variances, "the branches' variances");
  variances.resize(branches.size());   // those of the first rank
  double sum = 1;
  for (size_t l = 0; l < branches.size(); l++) {
    const int omega = branches[l]->omega.index;
    const Tensor start = Tensor::full(model->store.raw(omega).shape(), std::sqrt(sum), model->store.dtype());
    model->store.raw(omega).copy_from(start);
    model->store.host_changed();
    if (optimizer && optimizer->ema) model->store.slice_of(optimizer->ema, omega).copy_from(start);
    sum += variances[l];
    if (!std::isfinite(sum)) fail(Exit::failure, branches[l]->name, " is not finite before the first step: choose another parts.init");
  }
}

EntropySums Training::no_entropies() const {
  return {std::vector<double>(model->heads(), 0.0), std::vector<InputSquares>(model->attentions().size()), 0};
}

NonFinite Training::first_non_finite(const std::vector<Input>& given, uint32_t step) {
  std::vector<Input> batches;
  for (const Input& batch : given) batches.push_back(batch.to(device));
  const ParameterStore& store = model->store;
  for (size_t i = 0; i < store.parameters().size(); i++)
    if (!all_finite(store.raw(int(i)))) return {"weight", store.parameters()[i].name, "weight"};
  int64_t seen = 0;
  for (const Input& batch : batches) {
    seen += parallel->rank() * batch.count();
    for (int s = 0; s < recipe.run.shards; s++) {
      const NonFiniteWatch watch;
      EntropySums entropies = no_entropies();
      model->store.begin_gradients(s);
      Mode mode = mode_of(Pass::training, step, seen);
      mode.checkpoint_activations = false;
      run_shard(batch, s, 1.0 / double(std::max<int64_t>(1, batch.valid)), Pass::training, mode, entropies);
      if (watch.found()) return *watch.found();
    }
    seen += (parallel->size() - parallel->rank()) * batch.count();
  }
  return {"sum over the batch", "", "gradient"};
}

Tensor Training::logits(const Input& given, Pass pass) {
  const Input batch = given.to(device);
  spectral->iterate(false);
  const Tensor out = model->forward(input_of(batch, 0, batch.count()), mode_of(pass, 0, 0));
  model->store.device_changed_buffers();
  return out;
}

// What each row of logits should have said; -1: nothing.
std::vector<int64_t> labels_of(const Input& batch, int64_t first, int64_t count, int64_t classes) {
  if (batch.tokens) {
    const Tensor labels = batch.labels.slice(first, count).to(Device{});
    return {labels.data<int32_t>(), labels.data<int32_t>() + labels.size()};
  }
  const std::vector<double> t = batch.targets.slice(first, count).values();
  std::vector<int64_t> labels(count);
  for (int64_t i = 0; i < count; i++) {
    const double* target = t.data() + i * classes;
    labels[i] = std::max_element(target, target + classes) - target;
    if (target[labels[i]] == 0) labels[i] = -1;
  }
  return labels;
}

void Training::evaluate(const Input& given, EvalResult& sums, Tensor* logits) {
  const Input batch = given.to(device);
  const int64_t classes = model->num_classes, top = std::min<int64_t>(5, classes), length = std::max(1, model->context);   // rows of logits a sample
  if (logits) *logits = Tensor::empty({batch.count() * length, classes}, DType::f32);
  std::vector<EvalResult> parts(recipe.run.shards);
  std::vector<std::map<std::string, OpCost>> costs(recipe.run.shards);
  spectral->iterate(false);
  workers.run(recipe.run.shards, [&](int64_t s) {
    std::unique_ptr<Profile> watch = profile ? std::make_unique<Profile>() : nullptr;
    const ArenaScope memory(arenas_[s].get());
    const auto [begin, end] = shard_range(batch.count(), int(s));
    const int64_t micro = micro_batch(end - begin, Pass::evaluation);
    for (int64_t first = begin; first < end; first += micro) {
      const int64_t count = std::min(micro, end - first);
      const Tensor out = model->forward(input_of(batch, first, count), mode_of(Pass::evaluation, 0, 0));
      parts[s].loss += loss_of(out, batch, first, count, 1).item();
      const std::vector<double> x = out.values();
      const std::vector<int64_t> labels = labels_of(batch, first, count, classes);
      for (int64_t i = 0; i < count * length; i++) {
        const double* row = x.data() + i * classes;
        if (logits) std::copy(row, row + classes, logits->data<float>() + (first * length + i) * classes);
        const int64_t label = labels[i];
        if (label < 0) continue;   // a damaged image, or behind the end of a text
        // Ties and NaN count against the model.
        const int64_t above = std::count_if(row, row + classes, [&](const double& v) { return &v != row + label && !(v < row[label]); });
        parts[s].images++;
        parts[s].top1 += above < 1;
        parts[s].top5 += above < top;
      }
    }
    if (watch) costs[s] = std::move(watch->table);
  });
  add_costs(costs);
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
