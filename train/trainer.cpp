// trainer.cpp: one direction: batch, gradients, guard, update, ledger, sometimes evaluation and checkpoint.
#include "train/trainer.h"

#include <sys/resource.h>

#include <chrono>
#include <cmath>
#include <fmt/format.h>
#include <sstream>
#include <utility>
#include <nlohmann/json.hpp>

#include "engine/durable_file.h"
#include "train/csv_read.h"
#include "train/signals.h"

namespace {

constexpr int initial_power_iterations = 30;
constexpr size_t flight_steps = 64, named_images = 20, named_alarms = 20;

using Clock = std::chrono::steady_clock;
double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }
bool is_due(int64_t count, int64_t every) { return every > 0 && count % every == 0; }

}  // namespace

EvalResult evaluate_dataset(Training& training, BatchSource& loader, bool ema, const std::function<void(int64_t)>& progress) {
  if (ema) training.model->store.exchange_values(training.optimizer->ema);
  training.parallel->share_buffers();   // one network, not one a rank
  EvalResult sums;
  Batch batch;
  int64_t done = 0;
  loader.start(0);
  while (loader.next(batch)) {
    training.evaluate(make_input(batch, training.recipe, 0, 0, false), sums);
    done += batch.count;
    if (progress) progress(done);
  }
  const std::vector<double> all = training.parallel->gather({sums.loss, sums.top1, sums.top5, double(sums.images)}, "the evaluation");
  sums = {};
  for (size_t r = 0; r < all.size(); r += 4) {
    sums.loss += all[r];
    sums.top1 += all[r + 1];
    sums.top5 += all[r + 2];
    sums.images += int64_t(all[r + 3]);
  }
  if (ema) training.model->store.exchange_values(training.optimizer->ema);
  return sums;
}

Trainer::Trainer(const Recipe& recipe, const std::vector<const char*>& command_line, RunFolder folder, bool resume,
                 std::shared_ptr<Communicator> comm)
    : recipe_(recipe), folder_(std::move(folder)), train_(open_split(recipe, true, comm ? comm->rank : 0, comm ? comm->size : 1)),
      val_(open_split(recipe, false, comm ? comm->rank : 0, comm ? comm->size : 1)), training_(recipe, true, comm) {
  steps_per_epoch_ = train_.source->batches() / recipe.optimizer.accumulate;
  if (steps_per_epoch_ == 0)
    fail(Exit::config, "the training set has ", train_.samples(), " samples, fewer than one step of ",
         int64_t(recipe.data.batch_size) * recipe.optimizer.accumulate, ": make data.batch_size or optimizer.accumulate smaller");
  schedule_ = make_schedule(recipe, steps_per_epoch_);
  training_.norms->iterate(training_.workers, initial_power_iterations);
  if (resume && !folder_.paths.sealed_checkpoints().empty()) {
    const std::filesystem::path from = newest_checkpoint(folder_.paths);
    position_ = load_checkpoint(from, training_);
    if (position_.batch > batches_per_epoch())
      fail(Exit::config, "the checkpoint stands at batch ", position_.batch, " of an epoch that has only ", batches_per_epoch(),
           " now: resume with the data, data.batch_size and optimizer.accumulate that the run had");
    log("resuming from " + from.string());
  } else if (resume) {
    log("no checkpoint yet: starting anew");
  }
  // Nobody writes or removes a checkpoint before all have read theirs and found that it is the same.
  const size_t classes = train_.classes().size();
  training_.parallel->check_same(fmt::format("{} samples in {} classes and {} to validate", train_.samples(), classes, val_.samples()), "the data");
  const Tensor weights = training_.model->store.values();
  training_.parallel->check_same(fmt::format("step {} and weights {:016x}", position_.step, std::hash<std::string_view>()({weights.raw(), weights.bytes()})),
                                 "the start");
  if (!training_.parallel->leads()) return;
  open_folder(command_line, resume);
}

void Trainer::open_folder(const std::vector<const char*>& command_line, bool resume) {
  // First of all, because a folder with a recipe is a run that can be resumed, whatever happens next.
  write_file_atomically(folder_.paths.recipe(), to_toml(recipe_));
  ledger_ = std::make_unique<Ledger>(folder_.paths, training_, resume ? std::optional(position_.step) : std::nullopt);
  if (resume) remember();
  nlohmann::json session = describe_session(command_line, position_.step);
  session["threads"] = training_.workers.threads();
  session["device"] = recipe_.run.device;
  session["ranks"] = training_.parallel->size();
  add_session(folder_.paths, session);
  std::string classes;
  for (const std::string& name : train_.classes()) classes += name + "\n";
  write_file_atomically(folder_.paths.root / "classes.txt", classes);
  if (resume) ledger_->event(position_.step, "resumed", "", "");
}

// What earlier sessions met and reached, from the rows that are left of them.
void Trainer::remember() {
  const CsvData events = read_csv(folder_.paths.events(), {"kind", "layer", "message"});
  for (size_t i = 0; i < events.rows; i++)
    if (events.texts("kind")[i] == "damaged_image") damaged_.insert(events.texts("message")[i]);
  for (const double top1 : read_csv(folder_.paths.epochs()).numbers("top1")) {
    last_top1_ = top1;
    best_top1_ = std::max(best_top1_, top1);
  }
}

bool Trainer::stopping() { return training_.parallel->any(stop_signal() != 0, "whether to stop"); }

void Trainer::log(const std::string& line) {
  if (training_.parallel->leads()) progress_.log(line);
}

int Trainer::run() {
  try {
    return train();
  } catch (const Error& error) {
    if (error.exit != Exit::unavailable) throw;
    try {
      write_flight_recorder(error.what(), "", 0);
    } catch (const Error&) {   // another machine may not have the folder; what was lost matters more
    }
    throw;
  }
}

int Trainer::train() {
  const bool leads = training_.parallel->leads();
  if (position_.epoch >= recipe_.schedule.epochs) {
    if (leads) fmt::print("finished before: {} steps are done, run folder {}\n", position_.step, folder_.paths.root.string());
    return int(Exit::ok);
  }
  log(fmt::format("{}: {} parameters, {} training and {} validation samples, {} steps", recipe_.model.family, training_.model->store.count(),
                  train_.samples(), val_.samples(), steps_per_epoch_ * recipe_.schedule.epochs));
  if (leads) progress_.start("", steps_per_epoch_ * recipe_.schedule.epochs, position_.step);
  while (position_.epoch < recipe_.schedule.epochs && !stopping()) {
    train_epoch();
    if (!stopping()) end_epoch();
  }
  if (leads) progress_.finish();
  if (position_.epoch < recipe_.schedule.epochs) {
    if (ledger_) ledger_->event(last_step(), "stopped", "", stop_signal() ? fmt::format("signal {}", stop_signal()) : "a signal to another rank");
    save();
    training_.parallel->meet("the end");
    if (leads) fmt::print("stopped after step {}; go on with: lipsgrad train --resume --run {}\n", position_.step, folder_.paths.root.string());
    return int(Exit::interrupted);
  }
  training_.parallel->meet("the end");
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  if (leads)
    fmt::print("finished: top-1 {:.2f} % (best {:.2f} %), {:.0f} images/s, peak memory {:.2f} GB, run folder {}\n", 100 * last_top1_,
               100 * best_top1_, images_per_s_, double(usage.ru_maxrss) / 1e6, folder_.paths.root.string());
  return int(Exit::ok);
}

void Trainer::train_epoch() {
  if (training_.parallel->leads()) progress_.title(fmt::format("epoch {}/{}", position_.epoch + 1, recipe_.schedule.epochs));
  train_.source->start(int(position_.epoch), position_.batch);
  while (position_.batch < batches_per_epoch() && !stopping()) {
    step();
    report_damaged(*train_.source, "training", looked_at_train_);
    if (position_.batch < batches_per_epoch() && is_due(position_.step, recipe_.run.checkpoint_steps)) save();
  }
  ahead_.reset();
}

// What belongs to the last step of an epoch is saved behind it, so a checkpoint either holds the evaluation or is followed by it.
void Trainer::end_epoch() {
  position_.epoch++;
  position_.batch = 0;
  const bool last = position_.epoch == recipe_.schedule.epochs;
  if (last || is_due(position_.epoch, recipe_.run.eval_every)) evaluate();
  if (last || is_due(position_.epoch, recipe_.run.checkpoint_every) || is_due(position_.step, recipe_.run.checkpoint_steps)) save();
}

Trainer::Fetched Trainer::fetch(int64_t number) {
  Fetched fetched;
  batches_.resize(recipe_.optimizer.accumulate);
  for (Batch& batch : batches_) {
    check(train_.source->next(batch), "[trainer] the epoch ended early");
    fetched.wait += batch.wait_seconds;
    const int64_t before = int64_t(fetched.inputs.size()) * recipe_.data.batch_size + int64_t(training_.parallel->rank()) * batch.count;
    fetched.inputs.push_back(make_input(batch, recipe_, uint32_t(number), before, true));
  }
  return fetched;
}

void Trainer::step() {
  if (failed_ahead_) std::rethrow_exception(failed_ahead_);
  const Clock::time_point start = Clock::now();
  const uint32_t number = uint32_t(position_.step);
  const Fetched fetched = ahead_ ? std::move(*std::exchange(ahead_, {})) : fetch(number);
  const std::vector<Input>& inputs = fetched.inputs;
  const double lr = schedule_.at(position_.step);
  training_.temperature = schedule_.temperature_at(position_.step);
  if (position_.step == 0) training_.initialise_admin(inputs.front());
  if (ledger_) ledger_->before_step(position_.step);
  const StepResult result = training_.step(inputs, number, lr, [&](const StepResult& result) {
    if (!std::isfinite(result.loss) || !std::isfinite(result.gradient.total)) refuse(inputs, result, lr);
    if (ledger_) ledger_->before_update(position_.step, result);
  }, [&] {
    if (position_.batch + recipe_.optimizer.accumulate >= batches_per_epoch()) return;
    try {
      ahead_ = fetch(number + 1);
      training_.send_ahead(ahead_->inputs);
    } catch (...) {   // this step is done all the same, and its row is written
      failed_ahead_ = std::current_exception();
    }
  });
  StepRow row{position_.step, position_.epoch, (position_.step + 1) * result.images, lr, 0, fetched.wait};
  row.images_per_s = double(result.images) / since(start);
  images_per_s_ = images_per_s_ == 0 ? row.images_per_s : 0.98 * images_per_s_ + 0.02 * row.images_per_s;
  if (ledger_)
    for (const Alarms::Event& alarm : ledger_->step(row, result))
      if (++alarms_ <= int(named_alarms)) log(fmt::format("step {}: {} {}: {}", row.step, alarm.kind, alarm.layer, alarm.message));
  const double entropy = ledger_ ? ledger_->entropy_mean() : 0;
  recent_.push_back(fmt::format(R"({{"step":{},"loss":{},"grad_norm":{},"lr":{},"entropy":{}}})", row.step, result.loss,
                                result.gradient.total, lr, entropy));
  if (recent_.size() > flight_steps) recent_.pop_front();
  position_.step++;
  position_.batch += recipe_.optimizer.accumulate;
  if (ledger_ && progress_.wants_update())
    progress_.update(position_.step, fmt::format("{:.0f} images/s, loss={:.4f}, entropy={:.3f}", images_per_s_, result.loss, entropy));
}

// The update has not happened: the weights of the last checkpoint and those in memory are sound. Run the step again with the watch on to
// find where it began; the numbers come out the same.
void Trainer::refuse(const std::vector<Input>& inputs, const StepResult& result, double lr) {
  NonFinite first = training_.first_non_finite(inputs, uint32_t(position_.step));
  // Of the ranks that found a layer, the first.
  const std::string mine = first.layer.empty() ? "" : first.op + "\n" + first.layer + "\n" + first.where;
  for (const std::string& found : training_.parallel->gather_text(mine, "what is not finite")) {
    if (!first.layer.empty() || found.empty()) continue;
    const size_t a = found.find('\n'), b = found.find('\n', a + 1);
    first = {found.substr(0, a), found.substr(a + 1, b - a - 1), found.substr(b + 1)};
  }
  const std::string where = first.layer.empty() ? first.op : first.layer;
  const std::string message = fmt::format("step {}: loss {}, gradient norm {}: first non-finite {} in {} ({})", position_.step, result.loss,
                                          result.gradient.total, first.where, where, first.op);
  if (ledger_) {
    ledger_->event(position_.step, "non_finite", where, message);
    ledger_->sync();
    write_flight_recorder(message, where, lr);
    progress_.finish();
  }
  fail(Exit::failure, message, "; the update was refused and nothing was lost. Lower optimizer.lr or choose bounded parts; ",
       folder_.paths.flight_recorder().string(), " has the last steps");
}

// The last steps and, of several ranks, the last collectives: the first rank's as flight_recorder.json, another's beside it.
void Trainer::write_flight_recorder(const std::string& reason, const std::string& where, double lr) {
  const int rank = training_.parallel->rank();
  std::string steps, collectives;
  for (const std::string& line : recent_) steps += (steps.empty() ? "" : ",\n  ") + line;
  for (const CollectiveRecord& c : training_.parallel->comm().recent())
    collectives += fmt::format("{}{{\"number\":{},\"kind\":\"{}\",\"what\":{},\"bytes\":{},\"queued\":{:.6f},\"started\":{:.6f},\"finished\":{:.6f}}}",
                               collectives.empty() ? "" : ",\n  ", c.number, c.kind, nlohmann::json(c.what).dump(), c.bytes, c.queued, c.started, c.finished);
  const std::filesystem::path path = rank == 0 ? folder_.paths.flight_recorder() : folder_.paths.root / fmt::format("flight_recorder.rank-{}.json", rank);
  write_file_atomically(path, fmt::format("{{\"step\":{},\"lr\":{},\"reason\":{},\"layer\":{},\"rank\":{},\n \"steps\":[{}],\n \"collectives\":[{}]}}\n",
                                          position_.step, lr, nlohmann::json(reason).dump(), nlohmann::json(where).dump(), rank, steps, collectives));
}

void Trainer::report_damaged(const BatchSource& loader, const char* split, size_t& looked_at) {
  for (; looked_at < loader.damaged().size(); looked_at++) {
    const DamagedImage& image = loader.damaged()[looked_at];
    report_damaged(image.name + ": " + image.reason, split);
  }
}

void Trainer::report_damaged(const std::string& line, const char* split) {
  if (!damaged_.insert(line).second) return;
  if (!ledger_) {
    met_elsewhere_ += line + "\n";
    return;
  }
  ledger_->event(last_step(), "damaged_image", "", line);
  if (damaged_.size() <= named_images) log(fmt::format("damaged {} image left out: {}", split, line));
  if (damaged_.size() == named_images + 1) log("further damaged images are only listed in events.csv");
}

// What other ranks have met reaches the first at each evaluation.
void Trainer::exchange_damaged() {
  for (const std::string& lines : training_.parallel->gather_text(std::exchange(met_elsewhere_, ""), "damaged images")) {
    std::istringstream in(lines);
    for (std::string line; ledger_ && std::getline(in, line);) report_damaged(line, "training or validation");
  }
}

void Trainer::evaluate() {
  EpochRow row{position_.epoch, last_step(), evaluate_dataset(training_, *val_.source, false), {}, 0};
  if (training_.optimizer->ema) row.ema = evaluate_dataset(training_, *val_.source, true);
  report_damaged(*val_.source, "validation", looked_at_val_);
  exchange_damaged();
  row.damaged = int64_t(damaged_.size());
  if (ledger_) {
    ledger_->epoch(row);
    ledger_->certify(last_step());
    measure();
  }
  training_.parallel->await_first("the certified bound and the measured stretch");
  if (!ledger_) return;
  const double n = double(std::max<int64_t>(1, row.result.images));
  last_top1_ = row.result.top1 / n;
  best_top1_ = std::max(best_top1_, last_top1_);
  log(fmt::format("epoch {}: top-1 {:.2f} %, top-5 {:.2f} %, loss {:.4f}, {:.0f} images/s", position_.epoch, 100 * last_top1_,
                            100 * row.result.top5 / n, row.result.loss / n, images_per_s_));
}

// On the first samples of the validation set, whatever their number was for.
void Trainer::measure() {
  Batch batch;
  val_.source->start(0);
  if (recipe_.ledger.measure_samples == 0 || !val_.source->next(batch)) return;
  ledger_->measure(last_step(), make_input(batch, recipe_, 0, 0, false));
}

void Trainer::save() {
  if (ledger_) ledger_->sync();
  save_checkpoint(folder_.paths, training_, position_, recipe_.run.keep_checkpoints);
  training_.parallel->await_first("the checkpoint");
}
