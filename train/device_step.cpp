// device_step.cpp: stage, run, look.
#include "train/device_step.h"

#include <cmath>

#include "engine/between_nodes.h"
#include "engine/measures.h"

namespace {

constexpr Tensor Input::*parts[] = {&Input::pixels, &Input::images, &Input::targets, &Input::tokens, &Input::labels, &Input::staged_plan};

int64_t full_rows(const Input& batch) { return batch.tokens ? batch.labels.size() : batch.count(); }

}  // namespace

void check_device_recipe(const Recipe& recipe) {
  const auto refuse = [](const std::string& what) {
    fail(Exit::config, "run.device \"cuda\" does not have ", what, " yet: choose another, or run.device \"cpu\"");
  };
  const OptimizerRecipe& o = recipe.optimizer;
  if (o.name != "adamw" && o.name != "muon") refuse("optimizer.name \"" + recipe.optimizer.name + "\"");
  if (recipe.parts.residual == "admin") refuse("parts.residual \"admin\"");
}

DeviceStep::DeviceStep(Training& training)
    : training_(training), optimizer_(dynamic_cast<DeviceAdamW&>(*training.optimizer)), heads_(training.model->heads()),
      attentions_(int64_t(training.model->attentions().size())), upload_(training.device),
      temperature_(training.temperature), graph_(std::make_unique<StepGraph>(training.device)) {
  number_ = Tensor::zeros({1}, DType::i32, training.device);
  report_ = Tensor::zeros({1 + heads_ + 2 * attentions_}, DType::f64, training.device);
}

void DeviceStep::send(const std::vector<Input>& batches) {
  sent_ = batches;
  std::vector<Tensor> tensors;
  for (Input& batch : sent_) {
    if (batch.pixels) {
      const std::vector<uint8_t> plan = batch.plan.staged(batch.pixels.dim(0), batch.pixels.dim(3));
      batch.staged_plan = Tensor::from(Shape{int64_t(plan.size())}, plan, DType::u8);
    }
    for (const auto part : parts)
      if (batch.*part) tensors.push_back(batch.*part);
  }
  upload_.send(tensors);
}

void DeviceStep::receive(const std::vector<Input>& batches) {
  // What is under way is kept by sent_, so no other batch can lie in its place.
  if (sent_.empty() || sent_.front().samples().raw() != batches.front().samples().raw()) send(batches);
  staged_.resize(sent_.size());
  std::vector<Tensor> places;
  for (size_t i = 0; i < sent_.size(); i++) {
    for (const auto part : parts) {
      const Tensor& from = sent_[i].*part;
      Tensor& to = staged_[i].*part;
      if (!from) continue;
      if (!to || to.shape() != from.shape()) {
        to = Tensor::empty(from.shape(), from.dtype(), training_.device);
        graph_ = std::make_unique<StepGraph>(training_.device);   // it knows the old place
      }
      places.push_back(to);
    }
    staged_[i].valid = sent_[i].valid;
  }
  upload_.receive(places);
  sent_.clear();
}

void DeviceStep::step() {
  const ArenaScope memory(training_.arenas_[0].get());
  const ShardScope gradients(0);
  ParameterStore& store = training_.model->store;
  fill_bytes(report_.raw(), training_.device, 0, report_.bytes());
  training_.spectral->iterate(true);
  store.begin_gradients(0);
  DataParallel& ranks = *training_.parallel;
  if (ranks.buckets) ranks.buckets->begin();
  int64_t seen = 0;
  for (size_t b = 0; b < staged_.size(); b++) {
    const Input& batch = staged_[b];
    const double weight = 1.0 / (std::max(1.0, valid_[b]) * double(staged_.size()));
    const int64_t micro = training_.micro_batch(batch.count(), Pass::training);
    for (int64_t first = 0; first < batch.count(); first += micro) {
      const int64_t count = std::min(micro, batch.count() - first);
      EntropySums entropies = training_.no_entropies();
      entropies.report = report_;
      entropies.heads_at = 1;
      Mode mode = training_.mode_of(Pass::training, 0, seen + ranks.rank() * batch.count() + first);
      mode.step.where = reinterpret_cast<const uint32_t*>(number_.raw());
      mode.entropies = &entropies;
      Tape tape;
      const TapeScope open(&tape);
      const Tensor loss = training_.loss_of(training_.model->forward(training_.input_of(batch, first, count), mode), batch, first, count, weight);
      note_sum(loss, report_, 0);
      const bool last = b + 1 == staged_.size() && first + count == batch.count();
      std::optional<BetweenNodes> watch;
      if (last && ranks.buckets && store.spectral_weights.empty()) watch.emplace([&] { ranks.buckets->look(0); });
      tape.backward(loss);
    }
    seen += batch.count() * ranks.size();
  }
  store.end_gradients(0);
  training_.spectral->pull_back(store.gradient(0));
  if (ranks.buckets) ranks.buckets->finish();
  optimizer_.update_on_device();
}

std::vector<double> DeviceStep::samples_that_count(const std::vector<Input>& batches) const {
  std::vector<double> mine;
  for (const Input& batch : batches) mine.push_back(double(batch.valid));
  const std::vector<double> of_ranks = training_.parallel->gather(mine, "the samples that count");
  std::vector<double> all(mine.size());
  for (size_t i = 0; i < of_ranks.size(); i++) all[i % all.size()] += of_ranks[i];
  return all;
}

StepResult DeviceStep::report(const std::vector<Input>& batches) const {
  StepResult result;
  const std::vector<double> seen = report_.values();
  result.gradient = optimizer_.gradient_norms();
  EntropySums entropies = training_.no_entropies();
  for (const Input& batch : batches) entropies.samples += double(batch.count());
  result.images = int64_t(entropies.samples) * training_.parallel->size();
  std::copy_n(seen.begin() + 1, heads_, entropies.sums.begin());
  for (int64_t a = 0; a < attentions_; a++) {
    const double* squares = seen.data() + 1 + heads_ + 2 * a;
    entropies.inputs[size_t(a)] = {squares[0], squares[1]};
  }
  training_.add_shards(result, {seen[0]}, {entropies});
  return result;
}

StepResult DeviceStep::run(const std::vector<Input>& batches, uint32_t number, double lr, const std::function<void(const StepResult&)>& between,
                           const std::function<void()>& meanwhile) {
  ParameterStore& store = training_.model->store;
  if (optimizer_.steps == 0) optimizer_.project(training_.workers);   // as Optimizer::update has it
  if (store.batch_statistics) training_.parallel->share_buffers();
  store.values_in_use(), store.buffer_values();   // take over what the host changed
  receive(batches);
  number_.copy_from(Tensor::from(Shape{1}, std::vector<int32_t>{int32_t(number)}, DType::i32));
  optimizer_.begin_step(lr);
  valid_ = samples_that_count(batches);
  // Of several ranks a collective that hangs must be seen by the host, which a recording would hide.
  bool full = training_.recipe.run.capture && !training_.profile && training_.parallel->size() == 1;
  for (const Input& batch : batches) full = full && batch.valid == full_rows(batch);
  if (training_.temperature != temperature_) {   // frozen into the recording
    temperature_ = training_.temperature;
    graph_ = std::make_unique<StepGraph>(training_.device);
  }
  if (full) graph_->run([this] { step(); });
  else step();
  store.device_changed_buffers();
  if (meanwhile) meanwhile();
  const StepResult result = report(batches);
  between(result);
  store.device_changed();
  return result;
}
