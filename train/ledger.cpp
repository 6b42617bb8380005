// ledger.cpp: the columns of the tables are fixed by the model before the first row.
#include "train/ledger.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/durable_file.h"
#include "train/csv_read.h"
#include "train/model_bounds.h"

namespace {

std::vector<std::string> with_step(std::vector<std::string> columns) {
  columns.insert(columns.begin(), "step");
  return columns;
}

}  // namespace

Ledger::Ledger(const RunPaths& paths, Training& training, std::optional<int64_t> first_step)
    : training_(training), tensorboard_(paths.root, first_step), history_(training.model->store), attentions_(training.model->attentions()) {
  const ParameterStore& store = training.model->store;
  const auto table = [&](const std::filesystem::path& path, std::vector<std::string> columns) {
    return std::make_unique<CsvTable>(first_step ? CsvTable::resume(path, std::move(columns), *first_step)
                                                 : CsvTable::create(path, std::move(columns)));
  };
  steps_ = table(paths.steps(), {"step", "epoch", "samples", "loss", "lr", "grad_norm", "images_per_s", "data_wait", "log10_bound_l2",
                                 "bound_kind", "bound_blame", "log10_bound_rms"});
  const CsvData before = read_csv(paths.steps(), {"bound_kind", "bound_blame"});
  if (before.rows > 0) {
    log10_l2_ = before.numbers("log10_bound_l2").back();
    log10_rms_ = before.numbers("log10_bound_rms").back();
    network_kind_ = before.texts("bound_kind").back();
    network_blame_ = before.texts("bound_blame").back();
  }
  epochs_ = table(paths.epochs(), {"epoch", "step", "loss", "top1", "top5", "ema_top1", "images", "damaged"});
  events_ = table(paths.events(), {"step", "kind", "layer", "message"});

  nlohmann::json about;
  std::vector<std::string> layers, heads, norms;
  const ModelBound start = bound_model(training, *training.norms);
  for (const auto& layer : start.trace.layers) {
    layers.push_back(layer.name);
    about["layers"].push_back({{"name", layer.name}, {"kind", layer.kind}});
  }
  about["tree"] = to_json(*start.network.tree);
  for (const Attention* a : attentions_) {
    for (int h = 0; h < a->place.heads; h++) heads.push_back(a->name + "." + std::to_string(h));
    about["entropy_max"][a->name] = std::log(double(a->tokens()));
  }
  about["log10_promised_bound_rms"] = double(std::log10(promised_bound(training).rms));   // null where there is none
  for (size_t i = 0; i < store.parameters().size(); i++)
    if (training.norms->has(int(i))) weights_.push_back(int(i));
  for (const int i : weights_) norms.push_back("sigma." + store.parameters()[i].name);
  for (const Parameter& alpha : training.model->scales()) norms.push_back("alpha_max." + store.parameters()[alpha.index].name);
  for (const int i : weights_) norms.push_back("grad." + store.parameters()[i].name);
  for (const auto& weight : store.spectral_weights)
    if (weight.gamma >= 0) norms.push_back(store.parameters()[weight.gamma].name);
  for (size_t i = 0; i < store.buffers().size(); i++)
    if (store.buffers()[i].name.ends_with("skip_counter")) {
      counters_.push_back(int(i));
      norms.push_back(store.buffers()[i].name);
    }
  lipschitz_ = table(paths.lipschitz(), with_step(layers));
  entropy_floor_ = table(paths.entropy_floor(), with_step(heads));
  if (!history_.columns().empty()) pnac_ = table(paths.pnac(), with_step(history_.columns()));
  entropy_ = table(paths.entropy(), with_step(heads));
  norms_ = table(paths.norms(), with_step(norms));
  std::vector<std::string> certified{"kind", "blame", "log10_bound_l2", "log10_bound_rms"}, stages;
  certified.insert(certified.end(), layers.begin(), layers.end());
  for (const Stage& stage : training.model->stages) stages.push_back(stage.name);
  stages.push_back("network");
  certified_ = table(paths.certified(), with_step(certified));
  const CsvData certified_before = read_csv(paths.certified(), {"kind", "blame"});
  if (certified_before.rows > 0) certified_step_ = int64_t(certified_before.numbers("step").back());
  measured_ = table(paths.measured(), with_step(stages));
  std::vector<Alarms::Head> alarm_heads;
  for (const Attention* a : attentions_)
    for (int h = 0; h < a->place.heads; h++) alarm_heads.push_back({heads[alarm_heads.size()], std::log(double(a->tokens()))});
  std::vector<std::string> names;
  for (const int i : weights_) names.push_back(store.parameters()[i].name);
  alarms_ = std::make_unique<Alarms>(Alarms::Options{training.recipe.ledger.entropy_alarm, training.recipe.ledger.norm_alarm}, alarm_heads, names);
  if (first_step) alarms_->restore(read_csv(paths.events(), {"kind", "layer", "message"}), read_csv(paths.norms()));
  write_file_atomically(paths.ledger(), about.dump(1) + "\n");
}

void Ledger::before_step(int64_t step) {
  // With a row at every step the norms still are those that the last row measured.
  if (!is_full(step) || training_.recipe.ledger.every == 1) return;
  training_.norms->iterate(training_.workers, training_.recipe.ledger.power_iterations);
  training_.model->store.fetch_small();
}

void Ledger::before_update(int64_t step, const StepResult& result) {
  if (!is_full(step)) return;
  entropy_floors_.clear();
  for (const Attention* a : attentions_)
    for (const double floor : a->entropy_floors(*training_.norms, result.entropies.inputs[a->index], training_.temperature)) entropy_floors_.push_back(floor);
}

std::vector<Alarms::Event> Ledger::step(const StepRow& row, const StepResult& result) {
  std::vector<double> entropies;
  std::vector<Alarms::Event> alarms;
  if (pnac_) {
    history_.note();
    if (history_.full() && (row.step + 1) % history_.window == 0) pnac_->add(row.step).add_all(history_.pnac()).end_row();
  }
  if (is_full(row.step)) {
    training_.norms->iterate(training_.workers, training_.recipe.ledger.power_iterations);
    training_.spectral->iterate(false);   // the update moved gamma and sigma
    const ModelBound bound = bound_model(training_, *training_.norms);
    log10_l2_ = double(std::log10(bound.network.lipschitz));
    log10_rms_ = double(std::log10(bound.network.rms));
    network_kind_ = name_of(bound.network.kind);
    network_blame_ = bound.network.blame;
    lipschitz_->add(row.step);
    for (const auto& layer : bound.trace.layers) lipschitz_->add(double(layer.bound.lipschitz));
    lipschitz_->end_row();

    norms_->add(row.step);
    std::vector<double> sigmas;
    for (const int i : weights_) sigmas.push_back(training_.norms->sigma(i));
    norms_->add_all(sigmas);
    for (const Parameter& alpha : training_.model->scales()) norms_->add(max_abs(alpha));
    for (const int i : weights_) norms_->add(result.gradient.parameters[i]);
    const ParameterStore& store = training_.model->store;
    for (const auto& weight : store.spectral_weights)
      if (weight.gamma >= 0) norms_->add(store.raw(weight.gamma).item());
    for (const int i : counters_) norms_->add(store.raw_buffer(i).item());
    norms_->end_row();
    write_entropies(row, result, entropies);
    entropy_floor_->add(row.step).add_all(entropy_floors_).end_row();
    alarms = alarms_->row(entropies, sigmas);
    for (const Alarms::Event& alarm : alarms) event(row.step, alarm.kind, alarm.layer, alarm.message);
    const int every = training_.recipe.ledger.certify_every;
    if (every > 0 && row.step % every == 0) certify(row.step);
  }
  steps_->add(row.step).add(row.epoch).add(row.samples).add(result.loss).add(row.lr).add(result.gradient.total).add(row.images_per_s)
      .add(row.data_wait).add(log10_l2_).add(network_kind_).add(network_blame_).add(log10_rms_).end_row();
  write_tensorboard(row, result, entropies);
  return alarms;
}

void Ledger::certify(int64_t step) {
  if (step == certified_step_) return;
  certified_step_ = step;
  training_.certified->measure(training_.workers, *training_.norms);
  training_.spectral->iterate(false);
  const ModelBound bound = bound_model(training_, *training_.certified);
  certified_->add(step).add(name_of(bound.network.kind)).add(bound.network.blame).add(double(std::log10(bound.network.lipschitz)))
      .add(double(std::log10(bound.network.rms)));
  for (const auto& layer : bound.trace.layers) certified_->add(double(layer.bound.lipschitz));
  certified_->end_row();
}

void Ledger::measure(int64_t step, const Input& samples) { measured_->add(step).add_all(training_.stretches(samples)).end_row(); }

void Ledger::write_entropies(const StepRow& row, const StepResult& result, std::vector<double>& entropies) {
  entropy_->add(row.step);
  entropy_mean_ = 0;
  for (const double sum : result.entropies.sums) {
    entropies.push_back(sum / result.entropies.samples);
    entropy_mean_ += entropies.back() / double(result.entropies.sums.size());
  }
  entropy_->add_all(entropies);
  entropy_->end_row();
}

// The main curves at every step; the mean entropy of each attention layer every tenth, which is what a browser can still draw.
void Ledger::write_tensorboard(const StepRow& row, const StepResult& result, const std::vector<double>& entropies) {
  std::vector<Scalar> scalars{{"train/loss", float(result.loss)}, {"train/lr", float(row.lr)}, {"train/grad_norm", float(result.gradient.total)},
                              {"train/images_per_s", float(row.images_per_s)}, {"lipschitz/log10_network", float(log10_l2_)}};
  std::vector<std::string> tags;
  tags.reserve(attentions_.size());
  if (!entropies.empty() && row.step % 10 == 0)
    for (const Attention* a : attentions_) {
      double mean = 0;
      for (int h = 0; h < a->place.heads; h++) mean += entropies[a->first_head + h] / a->place.heads;
      tags.push_back("entropy/" + a->name);
      scalars.push_back({tags.back(), float(mean)});
    }
  tensorboard_.write(row.step, scalars);
}

void Ledger::epoch(const EpochRow& row) {
  const double n = double(std::max<int64_t>(1, row.result.images));
  const double ema = row.ema ? row.ema->top1 / double(std::max<int64_t>(1, row.ema->images)) : NAN;
  epochs_->add(row.epoch).add(row.step).add(row.result.loss / n).add(row.result.top1 / n).add(row.result.top5 / n).add(ema)
      .add(row.result.images).add(row.damaged).end_row();
  std::vector<Scalar> scalars{{"eval/loss", float(row.result.loss / n)}, {"eval/top1", float(row.result.top1 / n)}, {"eval/top5", float(row.result.top5 / n)}};
  if (row.ema) scalars.push_back({"eval/ema_top1", float(ema)});
  tensorboard_.write(row.step, scalars);
}

void Ledger::event(int64_t step, const std::string& kind, const std::string& layer, const std::string& message) {
  events_->add(step).add(kind).add(layer).add(message).end_row();
}

void Ledger::sync() {
  for (CsvTable* table : {steps_.get(), lipschitz_.get(), certified_.get(), measured_.get(), norms_.get(),
                           entropy_.get(), entropy_floor_.get(), pnac_.get(), epochs_.get(), events_.get()})
    if (table) table->sync();
  tensorboard_.flush();
}
